"""From what a gallery finds to an answer: best first, ties by id, one a group, nobody who was excluded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from rankone.index.directory import Directory, Rows
from rankone.index.vectors import Stored, Vectors

_SPARE: Final = 16
"""Fetched beyond k, so that a tie at the end need not be asked for again."""


class Gallery(Protocol):
    """Vectors by row."""

    @property
    def span(self) -> tuple[int, int]: ...
    def fit(self, rows: int) -> None: ...
    def set(self, row: int, vectors: Stored) -> None: ...
    def move(self, hole: int, last: int) -> None: ...
    def nearest(self, queries: Vectors, k: int, rows: Rows | int) -> tuple[Vectors, Rows]: ...
    def scores(self, queries: Vectors, rows: Rows) -> Vectors: ...
    def bound(self, last: float) -> float: ...


@dataclass(frozen=True)
class Wish:
    """What one query is to be answered with."""

    k: int
    min_score: float = -np.inf
    exclude: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Place:
    """A row that a query found, with its cosine in [-1, 1]."""

    row: int
    id: str
    score: float


@dataclass(frozen=True)
class Scope:
    """The rows that take part, all below a number or these alone; with labels, one for each label."""

    rows: Rows | int
    labels: Mapping[int, str] | None = None

    @property
    def size(self) -> int:
        """How many rows those are."""
        return self.rows if isinstance(self.rows, int) else len(self.rows)


def ranked(
    gallery: Gallery, directory: Directory, queries: Vectors, wishes: Sequence[Wish], scope: Scope
) -> list[list[Place]]:
    """The answer to every query (m, dim).

    Of the gallery's candidates, which may stand there several times, each is scored again by itself; where one that was not
    fetched could still belong to the answer, within rounding, four times as many are fetched.
    """
    answers: list[list[Place]] = [[] for _ in queries]
    waiting = list(range(len(queries))) if scope.size else []
    fetch = max((wish.k + len(wish.exclude) for wish in wishes), default=0) + _SPARE
    while waiting:
        fetch = min(fetch, scope.size)
        asked = queries[waiting]
        rough, rows = gallery.nearest(asked, fetch, scope.rows)
        scores = np.clip(gallery.scores(asked, rows), -1, 1)
        unsure = []
        for place, query in enumerate(waiting):
            wish = wishes[query]
            wanted = wish.k + len(wish.exclude) if scope.labels is None else rows.shape[1]
            found = _ordered(*_best(rows[place], scores[place], wanted), directory.ids)
            answers[query] = list(_picked(found, wish, scope.labels))
            limit = gallery.bound(float(rough[place, -1]))
            if not (fetch == scope.size or limit < wish.min_score or _is_sure(answers[query], wish.k, limit)):
                unsure.append(query)
        waiting, fetch = unsure, 4 * fetch
    return answers


def _is_sure(answer: Sequence[Place], k: int, limit: float) -> bool:
    return len(answer) == k and answer[-1].score > limit


def _best(rows: Rows, scores: Vectors, count: int) -> tuple[Rows, Vectors]:
    """Each row once: so many that have the highest scores, and those that are level with the last of them."""
    unique, first = np.unique(rows, return_index=True)
    scores = scores[first]
    if count >= len(unique):
        return unique, scores
    is_best = scores >= np.partition(scores, -count)[-count]
    return unique[is_best], scores[is_best]


def _ordered(rows: Rows, scores: Vectors, ids: Sequence[str]) -> list[Place]:
    places = (Place(row, ids[row], score) for row, score in zip(rows.tolist(), scores.tolist(), strict=True))
    return sorted(places, key=lambda place: (-place.score, place.id))


def _picked(found: Iterable[Place], wish: Wish, labels: Mapping[int, str] | None) -> Iterator[Place]:
    """The first k that may be answered, the best of each label where there are labels."""
    seen: set[str] = set()
    left = wish.k
    for place in found:
        if left == 0 or place.score < wish.min_score:
            return
        label = place.id if labels is None else labels[place.row]
        if place.id in wish.exclude or label in seen:
            continue
        seen.add(label)
        left -= 1
        yield place
