"""The compact gallery: one bit a dimension in memory, and the vectors themselves on disk.

A code is the signs s of a vector x, with <s, x>; <q, s> / <s, x> estimates <q, x>. This is RaBitQ (Gao and Long, SIGMOD 2024)
with its centre at zero and without its rotation, which a sketch with random signs does not need. A query is answered in four
steps, each over the rows that the one before it left: Hamming distances of the first bits, of all bits, estimates, and exact
scores, from disk. A step leaves the rows that are within so many standard deviations of the k-th best. How many vectors are
read depends on the items: the more items are as near to each other as an estimate is coarse, the more have to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

from rankone.index.gallery import Candidates, Rows, RowTable, Stored, Vectors, floats, is_dense
from rankone.index.threads import ParallelMap, shared

_FIRST_BYTES: Final = 256
"""Of a code. They lie side by side in memory, so that most rows cost a fifth of what whole codes would."""
NEAR: Final = 4000
_NEAR_EACH: Final = 40
"""The codes that are looked at more closely at most: `NEAR`, or so many for each neighbour that is asked for, if more."""
READ: Final = 2000
_READ_EACH: Final = 5
"""The vectors that are read from disk at most, likewise."""
DISTANCE_DEVIATIONS: Final = 5.0
"""A row is looked at more closely if its Hamming distance is at most so many deviations above the k-th least."""
DEVIATIONS: Final = 2.5
"""A row is read if its estimate is at most so many deviations below the k-th best."""
_QUERY_BITS: Final = 6
"""Of a query's coordinate. The error of rounding to them is a tenth of the error of a one-bit code."""
_PAIRS: Final = 1 << 26
"""Distances that are in memory at once."""
_SHARED_PAIRS: Final = 1 << 17
"""So many distances, a few milliseconds, are computed by one thread: to wake another and wait for it would take as long."""
_TILE_PAIRS: Final = 1 << 15
_LEAST_HEIGHT: Final = 256
"""A thread compares so many pairs at a time, of at least so many rows, whose codes stay in its cache for all queries."""
_INITIAL_CAPACITY: Final = 1024

Bits = npt.NDArray[np.uint8]
Distances = npt.NDArray[np.int32]
Read = Callable[[Sequence[int]], Iterable[tuple[int, bytes]]]


class Estimates(NamedTuple):
    """Rows (n,), and estimates (n,) of their inner products with a query, each with its standard deviation (n,)."""

    rows: Rows
    values: Vectors
    errors: Vectors


class CompactGallery:
    """Codes of vectors (dim,) by row. `read` yields given sequence numbers with their stored vectors, in any order."""

    def __init__(self, dim: int, table: RowTable, read: Read, stored: np.dtype[Any]) -> None:
        self._dim, self._table, self._read, self._stored = dim, table, read, stored
        self._num_bytes = -(-dim // 64) * 8  # whole words
        self._first, self._rest = _split(np.zeros((_INITIAL_CAPACITY, self._num_bytes), np.uint8))
        self._factors = np.zeros(_INITIAL_CAPACITY, np.float32)

    @property
    def stable_row_counts(self) -> tuple[int, int]:
        return 0, len(self._factors)  # memory is never freed

    def fit(self, num_rows: int) -> None:
        while num_rows > len(self._factors):
            first, rest, factors = (
                np.concatenate([held, np.zeros_like(held)]) for held in (self._first, self._rest, self._factors)
            )
            self._first, self._rest, self._factors = first, rest, factors

    def write(self, row: int, vectors: Stored) -> None:
        end = row + len(vectors)
        self.fit(end)
        x = floats(vectors)
        self._first[row:end], self._rest[row:end] = self._packed(x > 0)
        lengths = np.abs(x).sum(axis=1)
        self._factors[row:end] = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)

    def move(self, hole: int, last: int) -> None:
        for held in (self._first, self._rest, self._factors):
            held[hole] = held[last]

    def nearest(self, queries: Vectors, k: int, rows: Rows) -> list[Candidates]:
        """Likely neighbours of every query (m, dim). Rows that are left out are assumed, not proven, to score less.

        This thread reads vectors. If there is much to do, others do everything else, mostly ahead of it.
        """
        bound = -np.inf if k >= len(rows) else -2.0
        num_together = max(1, _PAIRS // len(rows))
        found = []
        with shared() as each:
            for together in (queries[start : start + num_together] for start in range(0, len(queries), num_together)):
                mapped = each if len(together) * len(rows) > _SHARED_PAIRS else map
                distances = self._first_distances(together, rows, mapped)
                asked = zip(together, distances, strict=True)
                likely = mapped(lambda pair: self._estimated(pair[0], pair[1], k, rows), asked)
                for query, estimated in zip(together, likely, strict=True):
                    found.append(Candidates(*self._scored(query, estimated, k), bound))
        return found

    def _first_distances(self, queries: Vectors, rows: Rows, each: ParallelMap) -> Distances:
        """The Hamming distances (m, n) of the first bits of every query and of rows, which are read once for all queries."""
        codes, _ = self._packed(queries > 0)
        distances = np.empty((len(queries), len(rows)), np.int32)
        height = max(_LEAST_HEIGHT, _TILE_PAIRS // len(queries))

        def compare(start: int) -> None:
            distances[:, start : start + height] = _hamming(codes, _taken(self._first, rows[start : start + height]))

        for _ in each(compare, range(0, len(rows), height)):
            pass
        return distances

    def _estimated(self, query: Vectors, distances: Distances, k: int, rows: Rows) -> Estimates:
        """The rows that are near by the distances (n,) of their first bits and then of all, and their estimates."""
        places = _least(distances, k, 8 * self._first.shape[1], len(rows))
        near = rows[places]
        if self._rest.shape[1]:
            _, code = self._packed(query[None] > 0)
            distances = distances[places] + self._apart(code, self._rest, near)[0]
            near = near[_least(distances, k, self._dim, max(NEAR, _NEAR_EACH * k))]
        return self._estimates(query, near)

    def _estimates(self, query: Vectors, rows: Rows) -> Estimates:
        """Estimates of the query's inner products with rows.

        The query is rounded to `low + step * u`. Each bit of u is counted where a code has a one, by |a and b| =
        (|a| + |b| - |a xor b|) / 2, that is by Hamming distances, which processors compute fast.

        A code stands for all vectors with its signs: around x, a cone whose tangent is sqrt(dim / <s, x>^2 - 1). An estimate
        is off by that over sqrt(dim), for a query at a right angle to x.
        """
        low = float(query.min())
        step = max((float(query.max()) - low) / (2**_QUERY_BITS - 1), 1e-12)
        u = np.rint((query - low) / step).astype(np.int64)
        weights = 1 << np.arange(_QUERY_BITS + 1)  # the highest bit is never set: distances from it count a code's ones
        planes = (u & weights[:, None]) > 0
        first, rest = self._packed(planes)
        apart = self._apart(first, self._first, rows) + self._apart(rest, self._rest, rows)
        num_ones, factors = apart[-1], self._factors[rows]
        in_both = (planes.sum(axis=1)[:, None] + num_ones - apart) / 2
        at_ones = low * num_ones + step * (weights @ in_both)
        estimates = (2 * at_ones - float(query.sum())) * factors  # <q, s> is what q has at the ones, less the rest
        lost = float(np.square(low + step * u - query).sum())
        errors = np.sqrt(np.maximum(factors**2 * (1 + lost) - 1 / self._dim, 0))
        return Estimates(rows, estimates.astype(np.float32), errors.astype(np.float32))

    def _apart(self, codes: Bits, held: Bits, rows: Rows) -> Distances:
        """The Hamming distances (m, n) of codes from what is held of rows, which are copied a few at a time."""
        tiles = (rows[start : start + _LEAST_HEIGHT] for start in range(0, len(rows), _LEAST_HEIGHT))
        return np.concatenate([_hamming(codes, _taken(held, tile)) for tile in tiles], axis=1)

    def _scored(self, query: Vectors, estimated: Estimates, k: int) -> tuple[Rows, Vectors]:
        """The rows that may be among the k nearest, and their scores (n,), from disk.

        The k with the best estimates are read first. A better row is at least as like the query as those, and an estimate
        is off only by what the query has beside its projection on the row: the length `beside`. Its square root is taken,
        because signs are not independent: with the length itself and 3 deviations, recall is 0.986 among near-duplicates.
        """
        rows, values, errors = estimated
        order = np.argsort(-values, kind="stable")[: max(READ, _READ_EACH * k)]
        first, others = order[:k], order[k:]
        scores = self._scores(query, rows[first])
        beside = max(0, 1 - max(0, float(scores.min())) ** 2) ** 0.5
        others = others[values[others] + DEVIATIONS * beside**0.5 * errors[others] >= values[first[-1]]]
        return rows[np.concatenate([first, others])], np.concatenate([scores, self._scores(query, rows[others])])

    def _scores(self, query: Vectors, rows: Rows) -> Vectors:
        """The inner products (n,) of the query with rows, from disk."""
        sequences, score = self._table.sequences[rows].tolist(), Scorer(query, self._stored)
        scores = {sequence: score(vector) for sequence, vector in self._read(sequences)}
        return np.array([scores[sequence] for sequence in sequences], np.float32)

    def _packed(self, signs: npt.NDArray[np.bool_]) -> tuple[Bits, Bits]:
        """(n, dim) as the first bits and the rest, padded as the codes are."""
        packed = np.packbits(signs, axis=1)
        return _split(np.pad(packed, ((0, 0), (0, self._num_bytes - packed.shape[1]))))


class Scorer:
    """The inner product of a query (dim,) with one stored vector after the other, each added up in the same order.

    faiss reads float16 as it is; to convert it first would take three times as long.
    """

    def __init__(self, query: Vectors, stored: np.dtype[Any]) -> None:
        dim, self._query = len(query), np.ascontiguousarray(query)
        self._index: Any = faiss.IndexFlatIP(dim)
        if stored == np.float16:
            self._index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        self._num_bytes = dim * stored.itemsize
        self._computer = self._index.get_FlatCodesDistanceComputer()
        self._computer.set_query(faiss.swig_ptr(self._query))

    def __call__(self, vector: bytes) -> float:
        """Raises ValueError if the vector is too short."""
        code = np.frombuffer(vector, np.uint8, self._num_bytes)
        return float(self._computer.distance_to_code(faiss.swig_ptr(code)))


def _split(codes: Bits) -> tuple[Bits, Bits]:
    """The first bits of codes, and the rest, if there is one."""
    return np.ascontiguousarray(codes[:, :_FIRST_BYTES]), np.ascontiguousarray(codes[:, _FIRST_BYTES:])


def _taken(held: Bits, rows: Rows) -> Bits:
    """What is held of rows: a view if they lie side by side."""
    return held[rows[0] : rows[-1] + 1] if is_dense(rows) else held[rows]


def _hamming(some: Bits, others: Bits) -> Distances:
    """The Hamming distances (m, n) of codes (m, bytes) from others (n, bytes)."""
    apart = np.zeros((len(some), len(others)), np.int32)
    if others.shape[1]:
        pointers = (faiss.swig_ptr(array) for array in (some, others))
        faiss.hammings(*pointers, *apart.shape, others.shape[1], faiss.swig_ptr(apart))  # type: ignore[attr-defined]
    return apart


def _least(distances: Distances, k: int, num_bits: int, most: int) -> Rows:
    """The places of those of distances (n,) of so many bits that are near the k-th least: the `most` least, if more are.

    A bit of two vectors differs with a probability that depends on their angle (SimHash; Charikar, STOC 2002), so a distance
    is distributed binomially.
    """
    counts = np.cumsum(np.bincount(distances))
    kth = int(np.searchsorted(counts, min(k, len(distances))))
    share = (kth + 1) / (num_bits + 2)  # not zero, as its deviation would be too
    limit = kth + DISTANCE_DEVIATIONS * (num_bits * share * (1 - share)) ** 0.5
    chosen = np.flatnonzero(distances <= limit)
    if len(chosen) <= most:
        return chosen
    limit = np.searchsorted(counts, most)
    chosen = np.flatnonzero(distances <= limit)
    tied = np.flatnonzero(distances[chosen] == limit)
    return np.delete(chosen, tied[len(tied) - (len(chosen) - most) :])
