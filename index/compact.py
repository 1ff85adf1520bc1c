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

from rankone.index.gallery import Directory, Rows, Stored, Vectors, as_floats, inner_products

Bits = npt.NDArray[np.uint8]
_BITS: Final = 6
"""Of a coordinate: what they round off of an even query is a tenth of what the one bit of a code does."""


class Rounded:
    """A query (dim,) rounded to `lowest + step * u`, with u as planes (bits, dim), the lowest bit first.

    RaBitQ's product: each bit of u is counted where a code has one, by |a and b| = (|a| + |b| - |a xor b|) / 2, hence by the
    Hamming distances that processors are quick at.
    """

    def __init__(self, query: Vectors) -> None:
        self.lowest = float(query.min())
        self.step = max((float(query.max()) - self.lowest) / (2**_BITS - 1), 1e-12)
        u = np.rint((query - self.lowest) / self.step).astype(np.int64)
        self.weights = 1 << np.arange(_BITS + 1)  # the last bit is never set: distances from it count those of a code
        self.planes = (u & self.weights[:, None]) > 0
        self.sum = float(query.sum())
        self.lost = float(np.square(self.lowest + self.step * u - query).sum())
        """The square of what was rounded off, as a part of that of the query, whose length is 1."""

    def at_set_bits(self, planes: Bits, codes: Bits) -> npt.NDArray[np.float64]:
        """What the query adds up to where each code (n, bytes) has a bit; `planes` are its own, packed."""
        apart = _distances(planes, codes)
        num_set = apart[-1]
        in_both = (self.planes.sum(axis=1)[:, None] + num_set - apart) / 2
        return np.asarray(self.lowest * num_set + self.step * (self.weights @ in_both))


def _distances(a: Bits, b: Bits) -> npt.NDArray[np.int32]:
    """Hamming distances (m, n)."""
    distances = np.empty((len(a), len(b)), np.int32)
    pointers = map(faiss.swig_ptr, (a, b))
    faiss.hammings(*pointers, len(a), len(b), a.shape[1], faiss.swig_ptr(distances))  # type: ignore[attr-defined]
    return distances


NEAR: Final = 2000
_NEAR_EACH: Final = 40
"""Codes that are looked at more closely: so many, or so many for every neighbour that is asked for, where that is more."""
READ: Final = 2000
_READ_EACH: Final = 5
"""Vectors that are read from disk, at most, in the same way."""
DEVIATIONS: Final = 2.5
"""How many standard deviations below the last of the best estimates a neighbour's may lie."""
_TILE: Final = 256
"""Codes or vectors that are copied at once."""
_FIRST: Final = 1024
_WORD: Final = 8
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

    @property
    def span(self) -> tuple[int, int]:
        """The fewest and the most rows that `fit` would change nothing for."""
        return 0, len(self._bits)

    def fit(self, rows: int) -> None:
        """Takes memory for so many rows, and keeps what it has.

        Raises:
            MemoryError: there is none.
        """
        while rows > len(self._bits):  # 1,260 bytes a row: moved in no time
            factors = np.concatenate([self._factors, np.zeros_like(self._factors)])
            self._bits = np.concatenate([self._bits, np.zeros_like(self._bits)])
            self._factors = factors

    def set(self, row: int, vectors: Stored) -> None:
        """Writes rows (n, dim) from `row` on, which lies one behind the last at most."""
        end = row + len(vectors)
        self.fit(end)
        x = as_floats(vectors)
        self._bits[row:end] = self._packed(x > 0)
        lengths = np.abs(x).sum(axis=1)
        self._factors[row:end] = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)

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
        near = (numbers[_nearest(code, bits, num_near)] for code in self._packed(queries > 0))
        found = [self._likely(query, likely, k) for query, likely in zip(queries, near, strict=True)]
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
        """Those of `near` that may be among the k best, with their estimates, best first."""
        rounded = Rounded(query)
        parts = [near[start : start + _TILE] for start in range(0, len(near), _TILE)]
        estimates = np.concatenate([self._estimates(rounded, part) for part in parts])
        order = np.argsort(-estimates, kind="stable")[: max(READ, _READ_EACH * k)]
        worst = estimates[order[min(k, len(order)) - 1]]
        likely = order[(estimates + DEVIATIONS * self._errors(rounded, near))[order] >= worst]
        return estimates[likely], near[likely]

    def _estimates(self, query: Rounded, rows: Rows) -> Vectors:
        """<q, s> / <s, x>, where <q, s> is twice what q has at the positive signs, less the sum of q."""
        sums = query.at_set_bits(self._packed(query.planes), self._bits[rows])
        return np.asarray((2 * sums - query.sum) * self._factors[rows], np.float32)

    def _errors(self, query: Rounded, rows: Rows) -> Vectors:
        """Standard deviations of the estimates, over codes and the rounding of the query.

        A code stands for all vectors with its signs: around x, a cone whose tangent is sqrt(dim / <s, x>^2 - 1). An estimate is
        off by that over sqrt(dim), and by less where query and vector are alike, which is not counted on.
        """
        squares = self._factors[rows] ** 2
        variances = np.maximum(squares * (1 + query.lost) - 1 / self._dim, 0)
        return np.asarray(np.sqrt(variances), np.float32)

    def _exact(self, query: Vectors, rows: Rows) -> Vectors:
        unique, places = np.unique(rows, return_inverse=True)
        scores = np.empty(len(unique), np.float32)
        for start in range(0, len(unique), _TILE):
            sequences = self._directory.sequences[unique[start : start + _TILE]]
            data = np.frombuffer(b"".join(self._read(sequences.tolist())), self._stored)
            scores[start : start + _TILE] = inner_products(query, data.reshape(len(sequences), self._dim))
        return scores[places]

    def _packed(self, signs: npt.NDArray[np.bool_]) -> Bits:
        """(n, dim) as bits, in whole words as the codes are."""
        packed = np.packbits(signs, axis=1)
        return np.pad(packed, ((0, 0), (0, self._bits.shape[1] - packed.shape[1])))


def _nearest(code: Bits, codes: Bits, count: int) -> Rows:
    """The places of so many of the codes (n, bytes), nearest by Hamming distance, in no order.

    Every code asks for its distance to the one: faiss shares queries between its threads, and not what they are compared with.
    """
    distances, _ = faiss.knn_hamming(codes, code[None], 1)
    return np.argpartition(distances[:, 0], count - 1)[:count]
