"""How near a layer must come to its reference, by dtype: one table for all numeric tests.

`RELATIVE` before the element-wise step; `EMBEDDING` after it, whose slope amplifies rounding in bins near 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

RELATIVE = {torch.float64: 1e-9, torch.float32: 1e-4}
EMBEDDING = {torch.float64: 1e-6, torch.float32: 1e-3}


def relative_error(found: Tensor, expected: Tensor) -> float:
    """`||found - expected|| / ||expected||` in float64; for a zero reference, the norm of what was found."""
    assert found.shape == expected.shape, f"{tuple(found.shape)} is not {tuple(expected.shape)}"
    found, expected = found.detach().double(), expected.detach().double()
    scale = expected.norm()
    return float((found - expected).norm() / (scale if scale > 0 else 1))
