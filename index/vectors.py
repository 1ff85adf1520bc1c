"""Vectors as they are searched, float32, from what they are on disk."""

from __future__ import annotations

from functools import cache
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Stored = npt.NDArray[np.floating]
"""float16 or float32, as the index keeps them."""


def as_floats(stored: Stored, out: Vectors | None = None) -> Vectors:
    """The same numbers (n, dim) as float32, in `out` where there is one.

    faiss converts with the instruction that processors have for it, each of its threads some rows; NumPy takes 20 us for 10,000
    numbers. It is also the first to touch the memory of `out`, which for gigabytes is most of the work.
    """
    floats = np.empty(stored.shape, np.float32) if out is None else out
    if stored.dtype != np.float16:
        np.copyto(floats, stored, casting="same_kind")
        return floats
    _halves(stored.shape[1]).sa_decode(np.ascontiguousarray(stored).view(np.uint8), floats)
    return floats


def inner_products(query: Vectors, stored: Stored) -> Vectors:
    """Those (n,) of a query (dim,) with rows (n, dim), each added up in the same order whichever rows there are.

    float16 is read as it is: converting it first would take three times as long.
    """
    num_rows, dim = stored.shape
    scores = np.empty(num_rows, np.float32)
    if stored.dtype != np.float16:
        pointers = map(faiss.swig_ptr, (scores, query, np.ascontiguousarray(stored, np.float32)))
        faiss.fvec_inner_products_ny(*pointers, dim, num_rows)  # type: ignore[attr-defined]
    elif num_rows:
        index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        index.add_sa_codes(np.ascontiguousarray(stored).view(np.uint8))
        found, places = index.search(query[None], num_rows)
        scores[places[0]] = found[0]
    return scores


@cache
def _halves(dim: int) -> Any:
    return faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16)
