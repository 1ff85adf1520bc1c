"""The compact gallery: one bit a dimension in memory, and the vectors themselves on disk.

A vector's code is the signs s of its coordinates and <s, x>, by which <q, s> / <s, x> estimates <q, x>: RaBitQ (Gao and Long,
SIGMOD 2024) with its centre at zero and without its rotation, which a sketch with random signs does not need. A query is
answered in three steps: the codes nearest to its own by Hamming distance, the best of those by the estimate, and these exactly,
from disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from service.index.directory import Directory, Rows
from service.index.matrix import Vectors

NEAR: Final = 2000
"""Codes that are looked at more closely, at least, ..."""
EXACT: Final = 100
"""... and vectors that are read from disk, at least; and for every neighbour that is asked for:"""
_NEAR_EACH: Final = 40
_EXACT_EACH: Final = 5
_TILE: Final = 32
"""Codes that are unpacked at once: what stays in the cache."""
_FIRST: Final = 1024
_WORD: Final = 8

Bits = npt.NDArray[np.uint8]
Read = Callable[[Iterable[int]], Sequence[bytes]]


class Codes:
    """Codes by row, of vectors (dim,) that `read` gives by sequence number, as they are on disk (`stored`)."""

    def __init__(self, dim: int, directory: Directory, read: Read, stored: np.dtype[Any]) -> None:
        self._dim, self._directory, self._read, self._stored = dim, directory, read, stored
        self._bits = np.zeros((_FIRST, -(-dim // (8 * _WORD)) * _WORD), np.uint8)
        self._factors = np.zeros(_FIRST, np.float32)

    @property
    def bytes_each(self) -> int:
        """Memory of a row."""
        return self._bits.shape[1] + self._factors.itemsize

    def set(self, row: int, vector: npt.NDArray[np.floating]) -> None:
        """Writes a row, one behind the last at most."""
        if row == len(self._bits):  # 1,260 bytes a row: moved in no time
            self._bits = np.concatenate([self._bits, np.zeros_like(self._bits)])
            self._factors = np.concatenate([self._factors, np.zeros_like(self._factors)])
        x = np.asarray(vector, np.float32)
        packed = np.packbits(x > 0)
        self._bits[row, : len(packed)] = packed
        self._factors[row] = 1 / max(float(np.abs(x).sum()), 1e-12)

    def move(self, hole: int, last: int) -> None:
        """Fills `hole` with the row `last`, which is the end from now on."""
        self._bits[hole], self._factors[hole] = self._bits[last], self._factors[last]

    def nearest(self, queries: Vectors, k: int, rows: Rows | int) -> tuple[Vectors, Rows]:
        """Estimates and rows of at least k likely neighbours among `rows` (all below a number), best first."""
        numbers = np.arange(rows) if isinstance(rows, int) else rows
        bits = self._bits[:rows] if isinstance(rows, int) else self._bits[rows]
        num_near = min(max(NEAR, _NEAR_EACH * k), len(numbers))
        asking = np.zeros((len(queries), bits.shape[1]), np.uint8)
        packed = np.packbits(queries > 0, axis=1)
        asking[:, : packed.shape[1]] = packed
        _, places = faiss.knn_hamming(asking, bits, num_near)
        near = numbers[places]
        estimates = np.stack([self._estimates(query, found) for query, found in zip(queries, near, strict=True)])
        num_exact = min(max(EXACT, _EXACT_EACH * k), num_near)
        order = np.argsort(-estimates, axis=1, kind="stable")[:, :num_exact]
        return np.take_along_axis(estimates, order, 1), np.take_along_axis(near, order, 1)

    def scores(self, queries: Vectors, rows: Rows) -> Vectors:
        """The inner product of every query (m, dim) with its rows (m, k), from disk."""
        return np.stack([self._exact(query, found) for query, found in zip(queries, rows, strict=True)])

    def bound(self, last: float) -> float:  # noqa: ARG002 - as the protocol has it
        """Nothing is ruled out by proof; what was not found is taken to be worse."""
        return -2.0

    def _estimates(self, query: Vectors, rows: Rows) -> Vectors:
        """<q, s> / <s, x>, where <q, s> is twice what the positive signs add up, less the sum of q."""
        sums = [
            np.unpackbits(self._bits[rows[start : start + _TILE]], axis=1, count=self._dim).astype(np.float32) @ query
            for start in range(0, len(rows), _TILE)
        ]
        return np.asarray((2 * np.concatenate(sums) - query.sum()) * self._factors[rows], np.float32)

    def _exact(self, query: Vectors, rows: Rows) -> Vectors:
        sequences = self._directory.sequences[rows].tolist()
        scores = np.empty(len(rows), np.float32)
        for place, data in enumerate(self._read(sequences)):
            vector = np.frombuffer(data, self._stored).astype(np.float32)
            faiss.fvec_inner_products_ny(  # type: ignore[attr-defined]
                *map(faiss.swig_ptr, (scores[place:], query, vector)), self._dim, 1
            )
        return scores
