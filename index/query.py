"""What a search asks, and what it finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rankone.index.filters import Field, Filter
from rankone.index.gallery import Vectors


@dataclass(frozen=True)
class SearchOptions:
    """How many items to answer a query with, from which score on, and which ids to leave out."""

    k: int
    min_score: float = -np.inf
    exclude: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Query:
    """Vectors (m, dim), each with its options, to be compared with the items that match the filter.

    With `group_by`, a metadata field, only the best item of each value is answered, and items whose field is
    missing, a list or an object are left out.
    """

    vectors: Vectors = field(repr=False)
    options: Sequence[SearchOptions]
    where: Filter | None = None
    group_by: Field | None = None


@dataclass(frozen=True)
class Hit:
    """An item that a search found; `score` is the cosine, in [-1, 1]."""

    id: str
    score: float
    metadata: dict[str, Any]


Hits = list[list[Hit]]
"""For every vector of a query its hits, best first."""
