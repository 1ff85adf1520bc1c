"""The compact gallery: one bit a dimension in memory, and the vectors themselves on disk.

A code is the signs s of a vector x, with <s, x>; <q, s> / <s, x> estimates <q, x>. This is RaBitQ (Gao and Long, SIGMOD 2024)
with its centre at zero and without its rotation, which a sketch with random signs does not need. A query is answered in three
steps: the codes that are nearest by Hamming distance; of those, all whose estimate may be off by enough to hide a neighbour;
and of those the exact scores, from disk. How many vectors are read depends on the items: the more items are as near to each
other as an estimate is coarse, the more have to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from rankone.index.gallery import Candidates, Rows, RowTable, Stored, Vectors, is_dense

NEAR: Final = 2000
_NEAR_EACH: Final = 40
"""The codes that are looked at more closely: `NEAR`, or so many for each neighbour that is asked for, if that is more."""
READ: Final = 2000
_READ_EACH: Final = 5
"""The vectors that are read from disk at most, likewise."""
DEVIATIONS: Final = 2.5
"""A row is read if its estimate is at most so many standard deviations below the k-th best."""
_QUERY_BITS: Final = 6
"""Of a query's coordinate. The error of rounding to them is a tenth of the error of a one-bit code."""
_TILE: Final = 256
_INITIAL_CAPACITY: Final = 1024

Bits = npt.NDArray[np.uint8]
Read = Callable[[Sequence[int]], Sequence[bytes]]


class CompactGallery:
    """Codes of vectors (dim,) by row. `read` returns stored vectors by sequence number."""

    def __init__(self, dim: int, table: RowTable, read: Read, stored: np.dtype[Any]) -> None:
        self._dim, self._table, self._read, self._stored = dim, table, read, stored
        self._bits = np.zeros((_INITIAL_CAPACITY, -(-dim // 64) * 8), np.uint8)  # whole words
        self._factors = np.zeros(_INITIAL_CAPACITY, np.float32)

    @property
    def stable_row_counts(self) -> tuple[int, int]:
        return 0, len(self._bits)  # memory is never freed

    def fit(self, num_rows: int) -> None:
        while num_rows > len(self._bits):
            factors = np.concatenate([self._factors, np.zeros_like(self._factors)])
            self._bits = np.concatenate([self._bits, np.zeros_like(self._bits)])
            self._factors = factors

    def write(self, row: int, vectors: Stored) -> None:
        end = row + len(vectors)
        self.fit(end)
        x = vectors.astype(np.float32)
        self._bits[row:end] = self._packed(x > 0)
        lengths = np.abs(x).sum(axis=1)
        self._factors[row:end] = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)

    def move(self, hole: int, last: int) -> None:
        self._bits[hole], self._factors[hole] = self._bits[last], self._factors[last]

    def nearest(self, queries: Vectors, k: int, rows: Rows) -> list[Candidates]:
        """Likely neighbours of every query (m, dim). Rows that are left out are assumed, not proven, to score less."""
        bound = -np.inf if k >= len(rows) else -2.0
        bits = self._bits[rows[0] : rows[-1] + 1] if is_dense(rows) else self._bits[rows]
        num_near = min(max(NEAR, _NEAR_EACH * k), len(rows))
        found = []
        for query, code in zip(queries, self._packed(queries > 0), strict=True):
            near = rows[_nearest(code, bits, num_near)]
            estimates, errors = self._estimates(query, near)
            order = np.argsort(-estimates, kind="stable")[: max(READ, _READ_EACH * k)]
            worst = estimates[order[min(k, len(order)) - 1]]
            likely = near[order[(estimates + DEVIATIONS * errors)[order] >= worst]]
            found.append(Candidates(likely, self._scores(query, likely), bound))
        return found

    def _estimates(self, query: Vectors, rows: Rows) -> tuple[Vectors, Vectors]:
        """Estimates (n,) of the query's inner products with rows, and their standard deviations (n,).

        The query is rounded to `low + step * u`. Each bit of u is counted where a code has a one, by |a and b| =
        (|a| + |b| - |a xor b|) / 2, that is by Hamming distances, which processors compute fast.

        A code stands for all vectors with its signs: around x, a cone whose tangent is sqrt(dim / <s, x>^2 - 1). An estimate
        is off by that over sqrt(dim), and by less where query and vector are alike, which is not relied on.
        """
        low = float(query.min())
        step = max((float(query.max()) - low) / (2**_QUERY_BITS - 1), 1e-12)
        u = np.rint((query - low) / step).astype(np.int64)
        weights = 1 << np.arange(_QUERY_BITS + 1)  # the highest bit is never set: distances from it count a code's ones
        planes = (u & weights[:, None]) > 0
        packed, codes, apart = self._packed(planes), self._bits[rows], np.empty((len(planes), len(rows)), np.int32)
        pointers = (faiss.swig_ptr(array) for array in (packed, codes))
        faiss.hammings(*pointers, *apart.shape, codes.shape[1], faiss.swig_ptr(apart))  # type: ignore[attr-defined]
        num_ones, factors = apart[-1], self._factors[rows]
        in_both = (planes.sum(axis=1)[:, None] + num_ones - apart) / 2
        at_ones = low * num_ones + step * (weights @ in_both)
        estimates = (2 * at_ones - float(query.sum())) * factors  # <q, s> is what q has at the ones, less the rest
        lost = float(np.square(low + step * u - query).sum())
        errors = np.sqrt(np.maximum(factors**2 * (1 + lost) - 1 / self._dim, 0))
        return estimates.astype(np.float32), errors.astype(np.float32)

    def _scores(self, query: Vectors, rows: Rows) -> Vectors:
        """The inner products (n,) of the query with rows, from disk."""
        scores = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), _TILE):
            sequences = self._table.sequences[rows[start : start + _TILE]].tolist()
            data = np.frombuffer(b"".join(self._read(sequences)), self._stored)
            scores[start : start + _TILE] = inner_products(query, data.reshape(len(sequences), self._dim))
        return scores

    def _packed(self, signs: npt.NDArray[np.bool_]) -> Bits:
        """(n, dim) as bits, padded to whole words as the codes are."""
        packed = np.packbits(signs, axis=1)
        return np.pad(packed, ((0, 0), (0, self._bits.shape[1] - packed.shape[1])))


def inner_products(query: Vectors, stored: Stored) -> Vectors:
    """The inner products (n,) of a query (dim,) with rows (n, dim), each added up in the same order whichever rows there are.

    faiss reads float16 as it is; to convert it first would take three times as long.
    """
    num_rows, dim = stored.shape
    index: Any = faiss.IndexFlatIP(dim)
    if stored.dtype == np.float16:
        index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    index.add_sa_codes(np.ascontiguousarray(stored).view(np.uint8))
    scores = np.empty(num_rows, np.float32)
    if num_rows:
        found, places = index.search(query[None], num_rows)
        scores[places[0]] = found[0]
    return scores


def _nearest(code: Bits, codes: Bits, count: int) -> Rows:
    """The places of the `count` codes (n, bytes) that are nearest by Hamming distance, in no order.

    Every code asks for its distance to the one: faiss divides queries among its threads, but not what they are compared with.
    """
    distances, _ = faiss.knn_hamming(codes, code[None], 1)
    return np.argpartition(distances[:, 0], count - 1)[:count]
