"""A retrieval index: items in SQLite, the same vectors in memory, searched exactly or by compact codes.

An item's way: `items` makes it a record, `writer` collects what everybody sends into one transaction of `store`, the disk has
it, `searcher` takes it into memory (`directory`, `matrix`), the request is answered. A search is answered by `searcher` and
`ranking`, within a snapshot of `reader` in which `filters` are evaluated. `index` is the two threads together, `registry` the
indexes of a folder.
"""

from __future__ import annotations

from rankone.index.database import Spec
from rankone.index.errors import (
    DeviceProblem,
    IndexConflict,
    IndexDamaged,
    IndexFull,
    IndexProblem,
    IndexReadOnly,
    InvalidFilter,
    UnknownIndex,
    UnknownItem,
)
from rankone.index.filters import Filter, compiled, path_of
from rankone.index.gallery import Vectors
from rankone.index.index import Index
from rankone.index.items import Item
from rankone.index.registry import DEFAULT, NAME, Description, Indexes, Serving, check_name, serve
from rankone.index.search import Hit, Query, Wish

__all__ = [
    "DEFAULT",
    "NAME",
    "Description",
    "DeviceProblem",
    "Filter",
    "Hit",
    "Index",
    "IndexConflict",
    "IndexDamaged",
    "IndexFull",
    "IndexProblem",
    "IndexReadOnly",
    "Indexes",
    "InvalidFilter",
    "Item",
    "Query",
    "Serving",
    "Spec",
    "UnknownIndex",
    "UnknownItem",
    "Vectors",
    "Wish",
    "check_name",
    "compiled",
    "path_of",
    "serve",
]
