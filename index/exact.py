"""Exact search: every row is compared with every query. Here are the blocks of rows, and the gallery on the CPU."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from rankone.index.gallery import Candidates, Rows, Stored, Vectors, floats, is_dense
from rankone.index.threads import shared

_BLOCK_BYTES: Final = 1 << 28
_DIVIDED_BYTES: Final = 1 << 22
"""So many bytes of rows are divided among the threads if there are fewer queries than threads."""
_BATCH: Final = 20
"""So many queries are multiplied with the rows as matrices, here as in faiss."""
_PAIRS: Final = 1 << 20
"""Products that a thread has in memory at once."""
_GROUPS: Final = 16
"""Groups of rows for each neighbour that is wanted."""
_TILE: Final = 1024
"""As many rows as faiss multiplies at once."""
ROUNDING: Final = 1e-5
"""Bound on the difference of two float32 inner products of the same unit vectors, in whatever order they are added up."""


class BlockGallery(ABC):
    """Rows in blocks (height, dim), arrays or tensors, never moved or copied; a removed row is replaced by the last one.

    A matrix product finds at least `least` candidates, and each is scored again by itself: what a matrix product gives for a
    row depends on where it lies and on the other queries. `rounding` bounds how much the two can differ. Scores of all queries
    with some rows take up to `scratch_bytes` at once; up to `num_copied` rows are copied at once where a filter leaves gaps.
    """

    def __init__(self, rounding: float, least: int, scratch_bytes: int, num_copied: int) -> None:
        self._rounding, self._least, self._scratch_bytes, self._num_copied = rounding, least, scratch_bytes, num_copied
        self._blocks: list[Any] = []
        self._starts: list[int] = []

    @property
    def stable_row_counts(self) -> tuple[int, int]:
        return (self._starts[-1] + 1 if self._starts else 0), self._capacity

    def fit(self, num_rows: int) -> None:
        while self._starts and self._starts[-1] >= num_rows:
            del self._blocks[-1], self._starts[-1]
        while (capacity := self._capacity) < num_rows:
            self._blocks.append(self._new_block(capacity))
            self._starts.append(capacity)

    def write(self, row: int, vectors: Stored) -> None:
        self.fit(max(row + len(vectors), self._capacity))
        while len(vectors):
            block, place = self._find(row)
            part = block[place : place + len(vectors)]
            part[:] = self._on_device(vectors[: len(part)])
            row, vectors = row + len(part), vectors[len(part) :]

    def move(self, hole: int, last: int) -> None:
        if hole != last:
            block, place = self._find(hole)
            source, last_place = self._find(last)
            block[place] = source[last_place]

    def nearest(self, queries: Vectors, k: int, rows: Rows) -> list[Candidates]:
        asked, k = self._on_device(queries), max(k, self._least)
        rough, positions = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        num_seen = 0
        for part in self._parts(rows, max(1, self._scratch_bytes // (4 * len(queries)))):
            found, places = self._best(asked, part, min(k, len(part)))
            rough, positions = np.hstack([rough, found]), np.hstack([positions, places + num_seen])
            order = np.argsort(-rough, axis=1, kind="stable")[:, :k]
            rough, positions = np.take_along_axis(rough, order, 1), np.take_along_axis(positions, order, 1)
            num_seen += len(part)
        numbers = rows[positions]
        bounds = np.full(len(queries), -np.inf) if k >= len(rows) else rough[:, -1] + self._rounding
        scores = self._scores(asked, numbers)
        return [Candidates(*found) for found in zip(numbers, scores, bounds.tolist(), strict=True)]

    @property
    def _capacity(self) -> int:
        return self._starts[-1] + len(self._blocks[-1]) if self._blocks else 0

    def _find(self, row: int) -> tuple[Any, int]:
        """The block of a row, and its place there."""
        number = bisect_right(self._starts, row) - 1
        return self._blocks[number], row - self._starts[number]

    def _parts(self, rows: Rows, height: int) -> Iterator[Any]:
        """Matrices of up to `height` rows that together hold these rows, in order: views, or copies where there are gaps."""
        for start, block in zip(self._starts, self._blocks, strict=True):
            low, high = np.searchsorted(rows, (start, start + len(block)))
            here = rows[low:high]
            step = height if is_dense(here) else min(height, self._num_copied)
            for tile in (here[place : place + step] - start for place in range(0, len(here), step)):
                yield block[tile[0] : tile[-1] + 1] if is_dense(tile) else block[self._on_device(tile)]

    def _scores(self, asked: Any, rows: Rows) -> Vectors:
        """The inner products (m, k) of every query with its rows (m, k), always added up in the same order."""
        scores = np.empty(rows.shape, np.float32)
        for start, block in zip(self._starts, self._blocks, strict=True):
            here = (rows >= start) & (rows < start + len(block))
            if here.any():
                scores[here] = self._products(asked, np.nonzero(here)[0].copy(), block, rows[here] - start)
        return scores

    @abstractmethod
    def _new_block(self, capacity: int) -> Any:
        """A block to follow `capacity` rows."""

    @abstractmethod
    def _on_device(self, array: npt.NDArray[Any]) -> Any:
        """An array as the blocks and the other methods take it."""

    @abstractmethod
    def _best(self, asked: Any, part: Any, k: int) -> tuple[Vectors, Rows]:
        """Inner products (m, k or more) of every query with its best rows of a part, within `rounding`, and their places."""

    @abstractmethod
    def _products(self, asked: Any, asking: Rows, block: Any, places: Rows) -> Vectors:
        """The inner products (n,) of the queries `asking` (n,) with rows of a block, each always added up in one order."""


class ExactGallery(BlockGallery):
    """Rows (n, dim) float32 in blocks of equal height, compared by `faiss.knn`."""

    def __init__(self, dim: int) -> None:
        super().__init__(ROUNDING, 1, sys.maxsize, _TILE)  # faiss divides its work itself
        self._dim = dim
        self._height = max(1, _BLOCK_BYTES // (4 * dim * _TILE)) * _TILE

    def _new_block(self, capacity: int) -> Vectors:  # noqa: ARG002 - all blocks are alike
        return np.empty((self._height, self._dim), np.float32)  # untouched pages take no memory

    def _on_device(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return floats(array) if array.dtype == np.float16 else array

    def _best(self, asked: Vectors, part: Vectors, k: int) -> tuple[Vectors, Rows]:
        multiplied = _multiplied_by(asked) if len(asked) >= _BATCH else None

        def best(piece: Vectors) -> tuple[Vectors, Rows]:
            if multiplied is None:
                return faiss.knn(asked, piece, min(k, len(piece)), metric=faiss.METRIC_INNER_PRODUCT)
            return _best_of_products(asked, multiplied, piece, min(k, len(piece)))

        count = faiss.omp_get_max_threads() if part.nbytes >= _DIVIDED_BYTES else 1
        num_pieces = max(count, -(-len(asked) * len(part) // _PAIRS))
        if num_pieces == 1:
            return best(part)
        pieces = [piece for piece in np.array_split(part, num_pieces) if len(piece)]  # faiss divides queries, not rows
        with shared() as each:
            found = list((each if count > 1 else map)(best, pieces))
        starts = np.cumsum([0, *map(len, pieces)])
        places = [places + start for (_, places), start in zip(found, starts, strict=False)]
        return np.hstack([scores for scores, _ in found]), np.hstack(places)

    def _products(self, asked: Vectors, asking: Rows, block: Vectors, places: Rows) -> Vectors:
        scores = np.empty(len(places), np.float32)
        pointers = (faiss.swig_ptr(array) for array in (asked, asking, block, places, scores))
        faiss.pairwise_indexed_inner_product(self._dim, len(places), *pointers)  # type: ignore[attr-defined]
        return scores


def _multiplied_by(asked: Vectors) -> Callable[[Vectors], Vectors]:
    """A function that gives the inner products (n, m) of rows (n, dim) with queries (m, dim), by faiss's BLAS."""
    product = faiss.LinearTransform(asked.shape[1], len(asked))
    faiss.copy_array_to_vector(asked.ravel(), product.A)
    product.is_trained = True
    return product.apply


def _best_of_products(
    asked: Vectors, multiplied: Callable[[Vectors], Vectors], rows: Vectors, k: int
) -> tuple[Vectors, Rows]:
    """As `faiss.knn`, which spends more time on its heaps than on the products of short vectors.

    The rows are divided into groups, and the k-th largest of the groups' maxima is the threshold: at least k products are
    that large, so the k best are. They lie in k groups, or in more if several maxima are equal.
    """
    height = max(1, len(rows) // (_GROUPS * k))
    products = multiplied(rows)
    grouped = products[: len(rows) // height * height].reshape(height, -1, len(asked))
    least = np.partition(grouped.max(axis=0), -k, axis=0)[-k]
    found = np.flatnonzero(products >= least)
    if len(found) > 2 * height * k * len(asked):
        return faiss.knn(asked, rows, k, metric=faiss.METRIC_INNER_PRODUCT)
    places, queries = np.divmod(found, len(asked))
    scores = products.ravel()[found]
    order = np.lexsort((-scores, queries))
    starts = np.searchsorted(queries[order], np.arange(len(asked)))
    chosen = order[starts[:, None] + np.arange(k)]
    return scores[chosen], places[chosen]
