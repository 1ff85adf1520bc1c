"""A retrieval index: items in SQLite, the same vectors in memory, searched exactly or by compact codes.

A change: `items` makes it a record, `writer` collects what waits into one transaction of `store`, and once that is on disk,
`search_thread` applies it to the rows in memory (`gallery`). A search: `search_thread` reads filters and metadata in a snapshot
of the file, a gallery (`exact`, `gpu` or `compact`) finds candidates, and `search` makes the answer of them. `loading` reads
the rows at the start, `index` is both threads together, `registry` all indexes of a folder. `backup`, `transfer`, `offline`
and `map` work on files without a service.
"""

from __future__ import annotations

from rankone.index import blas  # noqa: F401  # isort: skip - before anything that imports faiss
from rankone.index.backend import AnyIndex, AnyIndexes
from rankone.index.cancellation import cancellable
from rankone.index.change import Patch
from rankone.index.errors import (
    Cancelled,
    DeviceProblem,
    IndexConflict,
    IndexDamaged,
    IndexFull,
    IndexProblem,
    IndexReadOnly,
    IndexUnavailable,
    InvalidFilter,
    MetadataTooLong,
    UnknownIndex,
    UnknownItem,
    UnknownMap,
)
from rankone.index.filters import Field, Filter, compiled, path_of
from rankone.index.gallery import Vectors
from rankone.index.index import Index
from rankone.index.items import Item
from rankone.index.registry import Indexes
from rankone.index.search import Hit, Query, SearchOptions
from rankone.index.spec import DEFAULT, NAME, Dtype, Kind, Spec, check_name

__all__ = [
    "DEFAULT",
    "NAME",
    "AnyIndex",
    "AnyIndexes",
    "Cancelled",
    "DeviceProblem",
    "Dtype",
    "Field",
    "Filter",
    "Hit",
    "Index",
    "IndexConflict",
    "IndexDamaged",
    "IndexFull",
    "IndexProblem",
    "IndexReadOnly",
    "IndexUnavailable",
    "Indexes",
    "InvalidFilter",
    "Item",
    "Kind",
    "MetadataTooLong",
    "Patch",
    "Query",
    "SearchOptions",
    "Spec",
    "UnknownIndex",
    "UnknownItem",
    "UnknownMap",
    "Vectors",
    "cancellable",
    "check_name",
    "compiled",
    "path_of",
]
