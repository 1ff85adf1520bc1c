"""What the layers behind the backbone share: the check of a matrix, and their precision.

That is float32, or float64 where that comes in, whatever the backbone runs in.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def check_matrices(matrix_BDD: Tensor, dim: int) -> None:
    """Raises ValueError where `matrix_BDD` is not (batch, dim, dim)."""
    if matrix_BDD.dim() != 3 or matrix_BDD.shape[1:] != (dim, dim):
        raise ValueError(f"expected matrices (batch, {dim}, {dim}), got shape {tuple(matrix_BDD.shape)}")


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32, or as it is in float64."""
    return x if x.dtype == torch.float64 else x.float()


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Autocast off on the device of `x`. Where it is off already nothing is entered, which would take 0.1 ms."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
