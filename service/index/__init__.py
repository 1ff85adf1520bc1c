"""A retrieval index: items in SQLite, the same vectors as a dense matrix in memory, searched exactly."""

from __future__ import annotations

from service.index.errors import IndexConflict, IndexFull, IndexProblem, UnknownIndex, UnknownItem
from service.index.index import Hit, Index
from service.index.registry import Indexes, IndexView
from service.index.store import Item

__all__ = [
    "Hit",
    "Index",
    "IndexConflict",
    "IndexFull",
    "IndexProblem",
    "IndexView",
    "Indexes",
    "Item",
    "UnknownIndex",
    "UnknownItem",
]
