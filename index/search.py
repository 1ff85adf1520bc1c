"""What a search asks and finds, and how a gallery's candidates become the answer: best first, ties by id, one item of each
group, without excluded ids.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from rankone.index.filters import Field, Filter
from rankone.index.gallery import Candidates, Gallery, Rows, Vectors

_SPARE: Final = 16
"""Candidates beyond k, so that a tie at the end seldom takes a second fetch."""
_FEW: Final = 64
"""So many candidates more than an answer needs are sorted faster than told apart."""

Labels = Mapping[int, str]
"""A label by row."""


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


class ScoredRow(NamedTuple):
    """A row that a query found, with its cosine in [-1, 1]."""

    row: int
    id: str
    score: float


def search(
    gallery: Gallery,
    ids: Sequence[str],
    queries: Vectors,
    options: Sequence[SearchOptions],
    rows: Rows,
    labels: Labels | None = None,
) -> list[list[ScoredRow]]:
    """The best of these rows for every query (m, dim), best first, ties by id; with labels, one row for each label.

    Where a row that was not fetched could still belong to the answer, within rounding, four times as many are fetched.
    Nothing is fetched for a query of zeros, the embedding of a black image: it scores 0 with every row.
    """
    answers: list[list[ScoredRow]] = [[] for _ in queries]
    is_zero = ~queries.any(axis=1)
    waiting, zeros = (np.flatnonzero(asked).tolist() if len(rows) else [] for asked in (~is_zero, is_zero))
    num_fetched = max((option.k + len(option.exclude) for option in options), default=0) + _SPARE
    if zeros:
        ties = Candidates(rows, np.zeros(len(rows), np.float32), -np.inf)
        first = {option: _best(ties, ids, option, labels) for option in {options[query] for query in zeros}}
        for query in zeros:
            answers[query] = first[options[query]]
    while waiting:
        unsure = []
        candidates = gallery.nearest(queries[waiting], min(num_fetched, len(rows)), rows)
        for query, found in zip(waiting, candidates, strict=True):
            option = options[query]
            answer = answers[query] = _best(found, ids, option, labels)
            worst = answer[-1].score if len(answer) == option.k else option.min_score
            if not (found.bound == -np.inf or found.bound < worst):
                unsure.append(query)
        waiting, num_fetched = unsure, 4 * num_fetched
    return answers


def _first_by_id(rows: Rows, ids: Sequence[str], count: int) -> Rows:
    return np.array(heapq.nsmallest(count, rows.tolist(), key=ids.__getitem__), np.int64)


def _best(found: Candidates, ids: Sequence[str], options: SearchOptions, labels: Labels | None) -> list[ScoredRow]:
    """The answer to a query from its candidates, of which there may be millions: only rows of the answer become objects."""
    rows, scores = found.rows, np.clip(found.scores, -1, 1)
    num_wanted = options.k + len(options.exclude)
    if labels is None and num_wanted + _FEW < len(rows):  # sort these alone
        worst = np.partition(scores, -num_wanted)[-num_wanted]
        is_better = scores > worst
        tied = _first_by_id(rows[scores == worst], ids, num_wanted - int(is_better.sum()))
        rows = np.concatenate([rows[is_better], tied])
        scores = np.concatenate([scores[is_better], np.full(len(tied), worst)])
    candidates = zip((-scores).tolist(), rows.tolist(), strict=True)
    best, seen = list[ScoredRow](), set[str]()
    for less, item_id, row in sorted((less, ids[row], row) for less, row in candidates):
        if len(best) == options.k or -less < options.min_score:
            break
        label = item_id if labels is None else labels[row]
        if item_id not in options.exclude and label not in seen:
            seen.add(label)
            best.append(ScoredRow(row, item_id, -less))
    return best
