"""The compact gallery: one bit a dimension in memory, and the vectors themselves on disk.

A vector's code is the signs s of its coordinates and <s, x>, by which <q, s> / <s, x> estimates <q, x>: RaBitQ (Gao and Long,
SIGMOD 2024) with its centre at zero and without its rotation, which a sketch with random signs does not need. A query is
answered in three steps: the codes nearest to its own by Hamming distance; of those all whose estimate may be off by enough to
hide a neighbour; and these exactly, from disk. How many the last are is for the items to say: many where they are as near to
each other as an estimate is coarse, few where they are not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from service.index.directory import Directory, Rows
from service.index.vectors import Stored, Vectors, as_floats

NEAR: Final = 2000
"""Codes that are looked at more closely, at least, and vectors that are read from disk, at most; ..."""
_NEAR_EACH: Final = 40
_EXACT_EACH: Final = 5
"""... or so many of each for every neighbour that is asked for, where that is more."""
DEVIATIONS: Final = 2.5
"""How many standard deviations below the last of the best estimates a neighbour's may lie."""
_QUERY_BITS: Final = 6
"""Of a query's coordinate. What they round off is a tenth of what the one bit of a code does."""
_TILE: Final = 256
"""Vectors in memory at once."""
_FIRST: Final = 1024
_WORD: Final = 8

Bits = npt.NDArray[np.uint8]
Read = Callable[[Sequence[int]], Sequence[bytes]]


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

    def set(self, row: int, vectors: Stored) -> None:
        """Writes rows (n, dim) from `row` on, which lies one behind the last at most."""
        end = row + len(vectors)
        while end > len(self._bits):  # 1,260 bytes a row: moved in no time
            self._bits = np.concatenate([self._bits, np.zeros_like(self._bits)])
            self._factors = np.concatenate([self._factors, np.zeros_like(self._factors)])
        x = as_floats(vectors)
        self._bits[row:end] = self._packed(x > 0)
        self._factors[row:end] = 1 / np.maximum(np.abs(x).sum(axis=1), 1e-12)

    def move(self, hole: int, last: int) -> None:
        """Fills `hole` with the row `last`, which is the end from now on."""
        self._bits[hole], self._factors[hole] = self._bits[last], self._factors[last]

    def nearest(self, queries: Vectors, k: int, rows: Rows | int) -> tuple[Vectors, Rows]:
        """Estimates and rows of at least k likely neighbours among `rows` (all below a number), best first.

        A query that has fewer of them than another has its last one several times.
        """
        numbers = np.arange(rows) if isinstance(rows, int) else rows
        bits = self._bits[:rows] if isinstance(rows, int) else self._bits[rows]
        num_near = min(max(NEAR, _NEAR_EACH * k), len(numbers))
        _, places = faiss.knn_hamming(self._packed(queries > 0), bits, num_near)
        found = [self._likely(query, near, k) for query, near in zip(queries, numbers[places], strict=True)]
        width = max(len(likely) for _, likely in found)
        estimates, likely = (
            np.stack([np.pad(row, (0, width - len(row)), "edge") for row in part]) for part in zip(*found, strict=True)
        )
        return estimates, likely

    def scores(self, queries: Vectors, rows: Rows) -> Vectors:
        """The inner product of every query (m, dim) with its rows (m, k), from disk."""
        return np.stack([self._exact(query, found) for query, found in zip(queries, rows, strict=True)])

    def bound(self, last: float) -> float:  # noqa: ARG002 - as the protocol has it
        """Nothing is ruled out by proof; what was not found is taken to be worse."""
        return -2.0

    def _likely(self, query: Vectors, near: Rows, k: int) -> tuple[Vectors, Rows]:
        """Those of `near` that may be among the k best, with their estimates, best first.

        A code stands for all vectors with its signs: around x, a cone of sin^2 = 1 - <s, x>^2 / dim. An estimate is off by a
        standard deviation of its tangent over sqrt(dim), and by less where query and vector are alike, which is not counted on.
        """
        estimates, factors = self._estimates(query, near), self._factors[near]
        order = np.argsort(-estimates, kind="stable")[: max(NEAR, _EXACT_EACH * k)]
        errors = np.sqrt(np.maximum(factors**2 - 1 / self._dim, 0))
        worst = estimates[order[min(k, len(order)) - 1]]
        likely = order[(estimates + DEVIATIONS * errors)[order] >= worst]
        return estimates[likely], near[likely]

    def _estimates(self, query: Vectors, rows: Rows) -> Vectors:
        """<q, s> / <s, x>, where <q, s> is twice what q has at the positive signs, less the sum of q.

        With q rounded to `lowest + step * u`, u is a number of bits, and each of them counted where a sign is positive by
        |a and b| = (|a| + |b| - |a xor b|) / 2: RaBitQ's product, by the Hamming distances that processors are quick at.
        """
        lowest = query.min()
        step = max(float(query.max() - lowest) / (2**_QUERY_BITS - 1), 1e-12)
        weights = 1 << np.arange(_QUERY_BITS + 1)  # the last bit is never set: distances from it count the signs
        planes = (np.rint((query - lowest) / step).astype(np.int64) & weights[:, None]) > 0
        apart = _distances(self._packed(planes), self._bits[rows])
        num_positive = apart[-1]
        in_both = (planes.sum(axis=1)[:, None] + num_positive - apart) / 2
        sums = lowest * num_positive + step * (weights @ in_both)
        return np.asarray((2 * sums - query.sum()) * self._factors[rows], np.float32)

    def _exact(self, query: Vectors, rows: Rows) -> Vectors:
        unique, places = np.unique(rows, return_inverse=True)
        scores = np.empty(len(unique), np.float32)
        for start in range(0, len(unique), _TILE):
            sequences = self._directory.sequences[unique[start : start + _TILE]]
            data = np.frombuffer(b"".join(self._read(sequences.tolist())), self._stored)
            vectors = as_floats(data.reshape(len(sequences), self._dim))
            pointers = map(faiss.swig_ptr, (scores[start:], query, vectors))
            faiss.fvec_inner_products_ny(*pointers, self._dim, len(vectors))  # type: ignore[attr-defined]
        return scores[places]

    def _packed(self, signs: npt.NDArray[np.bool_]) -> Bits:
        """(n, dim) as bits, in whole words as the codes are."""
        packed = np.packbits(signs, axis=1)
        return np.pad(packed, ((0, 0), (0, self._bits.shape[1] - packed.shape[1])))


def _distances(a: Bits, b: Bits) -> npt.NDArray[np.int32]:
    """Hamming distances (m, n)."""
    distances = np.empty((len(a), len(b)), np.int32)
    pointers = map(faiss.swig_ptr, (a, b))
    faiss.hammings(*pointers, len(a), len(b), a.shape[1], faiss.swig_ptr(distances))  # type: ignore[attr-defined]
    return distances
