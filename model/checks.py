"""The checks of shapes that layers share."""

from __future__ import annotations

from torch import Tensor


def check_matrices(matrix_BDD: Tensor, dim: int) -> None:
    """Raises ValueError where `matrix_BDD` is not (batch, dim, dim)."""
    if matrix_BDD.dim() != 3 or matrix_BDD.shape[1:] != (dim, dim):
        raise ValueError(f"expected matrices (batch, {dim}, {dim}), got shape {tuple(matrix_BDD.shape)}")
