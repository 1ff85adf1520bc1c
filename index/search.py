"""What a gallery finds becomes an answer: best first, ties by id, one item of each group, without excluded ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from rankone.index.gallery import Candidates, Gallery, Rows, Vectors

_SPARE: Final = 16
"""Candidates beyond k, so that a tie at the end seldom takes a second fetch."""


@dataclass(frozen=True)
class SearchOptions:
    """How many items to answer a query with, from which score on, and which ids to leave out."""

    k: int
    min_score: float = -np.inf
    exclude: frozenset[str] = field(default_factory=frozenset)


Labels = Mapping[int, str]
"""A label by row."""


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
    """
    answers: list[list[ScoredRow]] = [[] for _ in queries]
    waiting = list(range(len(queries))) if len(rows) else []
    num_fetched = max((option.k + len(option.exclude) for option in options), default=0) + _SPARE
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


def _best(found: Candidates, ids: Sequence[str], options: SearchOptions, labels: Labels | None) -> list[ScoredRow]:
    rows, scores = found.rows, np.clip(found.scores, -1, 1)
    num_wanted = options.k + len(options.exclude)
    if labels is None and num_wanted < len(rows):  # sort these alone, and any that tie with the last of them
        is_wanted = scores >= np.partition(scores, -num_wanted)[-num_wanted]
        rows, scores = rows[is_wanted], scores[is_wanted]
    ordered = [ScoredRow(row, ids[row], score) for row, score in zip(rows.tolist(), scores.tolist(), strict=True)]
    ordered.sort(key=lambda scored: (-scored.score, scored.id))
    best, seen = list[ScoredRow](), set[str]()
    for candidate in ordered:
        if len(best) == options.k or candidate.score < options.min_score:
            break
        label = candidate.id if labels is None else labels[candidate.row]
        if candidate.id not in options.exclude and label not in seen:
            seen.add(label)
            best.append(candidate)
    return best
