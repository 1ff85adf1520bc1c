"""Products of a query with many codes of one bit a dimension, by counting bits."""

from __future__ import annotations

from typing import Final

import faiss
import numpy as np
import numpy.typing as npt

from rankone.index.vectors import Vectors

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
