"""The vectors of an index in memory: a dense matrix of rows, searched exactly by inner product."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import faiss
import numpy as np
import numpy.typing as npt

_FIRST_CAPACITY: Final = 64


class Rows:
    """Ids and float32 vectors (n, dim), always dense: a removed row is filled by the last one."""

    def __init__(self, dim: int, threads: int) -> None:
        self._threads = threads
        self._matrix = np.empty((_FIRST_CAPACITY, dim), np.float32)
        self._ids: list[str] = []
        self._row: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def reserve(self, extra: int) -> None:
        """Makes room for `extra` more rows, so that `put` of as many cannot fail.

        Raises:
            MemoryError: there is none.
        """
        needed = len(self._ids) + extra
        if needed > len(self._matrix):
            grown = np.empty((max(needed, 2 * len(self._matrix)), self._matrix.shape[1]), np.float32)
            grown[: len(self._ids)] = self._matrix[: len(self._ids)]
            self._matrix = grown

    def put(self, ids: Sequence[str], vectors: npt.NDArray[np.floating]) -> None:
        """Adds rows, or replaces those whose id is there."""
        self.reserve(len(ids))
        for item_id, vector in zip(ids, vectors, strict=True):
            row = self._row.setdefault(item_id, len(self._ids))
            if row == len(self._ids):
                self._ids.append(item_id)
            self._matrix[row] = vector

    def drop(self, ids: Iterable[str]) -> None:
        """Removes the rows of these ids, where they are there."""
        for item_id in ids:
            row = self._row.pop(item_id, None)
            if row is None:
                continue
            last_id = self._ids.pop()
            if last_id != item_id:
                self._matrix[row] = self._matrix[len(self._ids)]
                self._ids[row], self._row[last_id] = last_id, row

    def search(self, queries: npt.NDArray[np.float32], k: int) -> list[list[tuple[str, float]]]:
        """For every query (m, dim), the k ids with the highest inner product, best first, all where there are fewer.

        faiss checks its arguments by assertions and allocates k results a query: both are bounded before.
        """
        k = min(k, len(self._ids))
        if k == 0:
            return [[] for _ in queries]
        used = self._matrix[: len(self._ids)]
        faiss.omp_set_num_threads(self._threads)  # holds for the calling thread alone, and any thread may call
        scores, rows = faiss.knn(np.ascontiguousarray(queries), used, k, metric=faiss.METRIC_INNER_PRODUCT)
        return [
            sorted(
                ((self._ids[row], float(score)) for row, score in zip(row_list, score_list, strict=True)),
                key=lambda hit: (-hit[1], hit[0]),
            )
            for row_list, score_list in zip(rows.tolist(), scores.tolist(), strict=True)
        ]
