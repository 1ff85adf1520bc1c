"""The exact gallery: float32 rows in blocks, every one of them compared with every query.

A block is never moved nor copied; a removed row is filled by the last one. Only the search thread comes here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import faiss
import numpy as np
import numpy.typing as npt

from rankone.index.gallery import Rows, Stored, Vectors, as_floats

_BLOCK_BYTES: Final = 1 << 28
_TILE: Final = 1024
"""Rows that are gathered at once where a filter leaves gaps; as many as faiss multiplies at once."""
ROUNDING: Final = 1e-5
"""More than two float32 sums of the same product of unit vectors differ by, in whatever order they are added."""


class Matrix:
    """Rows (n, dim), 0 to n - 1."""

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._height = max(1, _BLOCK_BYTES // (4 * dim * _TILE)) * _TILE
        self._blocks: list[Vectors] = []

    @property
    def span(self) -> tuple[int, int]:
        """The fewest and the most rows that `fit` would change nothing for."""
        most = len(self._blocks) * self._height
        return max(0, most - self._height + 1), most

    def fit(self, rows: int) -> None:
        """Takes memory for so many rows, and lets go of what they do not need.

        Raises:
            MemoryError: there is none.
        """
        needed = -(-rows // self._height)
        del self._blocks[needed:]
        while len(self._blocks) < needed:  # untouched pages take no memory
            self._blocks.append(np.empty((self._height, self._dim), np.float32))

    def set(self, row: int, vectors: Stored) -> None:
        """Writes rows (n, dim) from `row` on, which lies one behind the last at most."""
        self.fit(max(row + len(vectors), self.span[1]))
        while len(vectors):
            block, place = divmod(row, self._height)
            part = self._blocks[block][place : place + len(vectors)]
            as_floats(vectors[: len(part)], part)
            row, vectors = row + len(part), vectors[len(part) :]

    def move(self, hole: int, last: int) -> None:
        """Fills `hole` with the row `last`, which is the end from now on."""
        block, place = divmod(last, self._height)
        if hole != last:
            self._blocks[hole // self._height][hole % self._height] = self._blocks[block][place]

    def nearest(self, queries: Vectors, k: int, rows: Rows | int) -> tuple[Vectors, Rows]:
        """Inner products (m, k) and rows (m, k) of the k nearest among `rows` (all below a number), best first."""
        found = [self._nearest_of(part, queries, k, numbers) for part, numbers in self._parts(rows)]
        scores = np.concatenate([part for part, _ in found], axis=1)
        numbers = np.concatenate([part for _, part in found], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(numbers, order, 1)

    def scores(self, queries: Vectors, rows: Rows) -> Vectors:
        """The inner product of every query (m, dim) with its rows (m, k), always added up in the same order.

        A matrix product is not: what it gives for two equal rows depends on where they lie and on who else asks.
        """
        scores = np.empty(rows.shape, np.float32)
        asking = np.broadcast_to(np.arange(len(queries))[:, None], rows.shape)
        for number, block in enumerate(self._blocks):
            here = rows // self._height == number
            if here.any():
                scores[here] = _pairs(queries, asking[here], block, rows[here] % self._height)
        return scores

    def bound(self, last: float) -> float:
        """What no row that `nearest` left out can exceed, if `last` is the lowest score that it found."""
        return last + ROUNDING

    def _nearest_of(self, part: Vectors, queries: Vectors, k: int, numbers: Rows) -> tuple[Vectors, Rows]:
        scores, places = faiss.knn(queries, part, min(k, len(part)), metric=faiss.METRIC_INNER_PRODUCT)
        return scores, numbers[places]

    def _parts(self, rows: Rows | int) -> Iterator[tuple[Vectors, Rows]]:
        """Dense matrices that together hold the rows: views where they lie side by side, else tiles gathered one by one."""
        if isinstance(rows, int):
            for block, start in zip(self._blocks, range(0, rows, self._height), strict=False):
                yield block[: rows - start], np.arange(start, min(rows, start + self._height))
            return
        buffer = np.empty((min(_TILE, len(rows)), self._dim), np.float32)
        for number, block in enumerate(self._blocks):
            start = number * self._height
            low, high = np.searchsorted(rows, (start, start + self._height))
            for tile in _tiles(rows[low:high]):
                yield self._dense(block, tile - start, buffer), tile

    def _dense(self, block: Vectors, places: Rows, buffer: Vectors) -> Vectors:
        first, last = int(places[0]), int(places[-1])
        if last - first + 1 == len(places):
            return block[first : last + 1]
        return np.take(block, places, axis=0, out=buffer[: len(places)], mode="clip")


def _tiles(rows: Rows) -> Iterator[Rows]:
    return (rows[start : start + _TILE] for start in range(0, len(rows), _TILE))


def _pairs(queries: Vectors, asking: Rows, block: Vectors, places: Rows) -> Vectors:
    """Inner products of queries[asking] with block[places], pair by pair."""
    asking, places = np.ascontiguousarray(asking, np.int64), np.ascontiguousarray(places, np.int64)
    scores = np.empty(len(asking), np.float32)
    pointers = (faiss.swig_ptr(array) for array in (queries, asking, block, places, scores))
    faiss.pairwise_indexed_inner_product(queries.shape[1], len(asking), *pointers)  # type: ignore[attr-defined]
    return scores


def as_queries(vectors: Sequence[npt.NDArray[np.floating]]) -> Vectors:
    """Queries of several requests as one matrix, as faiss wants it."""
    return np.ascontiguousarray(np.concatenate(vectors), np.float32)
