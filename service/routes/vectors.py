"""Vectors that come from outside, checked before they are compared with anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from rankone.service.rejections import InputsRejected, InvalidVector, Rejection

_NORM_TOLERANCE: Final = 1e-2
"""A float16 embedding's length differs from 1 by less."""


def as_vectors(rows: Sequence[Sequence[float]], dim: int) -> npt.NDArray[np.float32]:
    """The rows as (n, dim) float32.

    Raises:
        InputsRejected: rows of another length, not finite, or whose norm is neither 1 nor 0, every one of them.
    """
    vectors = np.zeros((len(rows), dim), np.float32)
    rejections: list[Rejection] = []
    for index, row in enumerate(rows):
        if (reason := _fault(row, dim)) is not None:
            rejections.append(Rejection(index, InvalidVector(reason)))
        else:
            vectors[index] = row
    if rejections:
        raise InputsRejected(rejections)
    return vectors


def _fault(row: Sequence[float], dim: int) -> str | None:
    if len(row) != dim:
        return f"{len(row)} numbers; this bundle's embeddings have {dim}"
    with np.errstate(over="ignore"):
        norm = float(np.linalg.norm(np.asarray(row, np.float64)))
    if not np.isfinite(norm):
        return "holds NaN, infinity or numbers too large"
    if norm and abs(norm - 1) > _NORM_TOLERANCE:
        return f"has length {norm:.4g}; send what /embed returned, of length 1"
    return None
