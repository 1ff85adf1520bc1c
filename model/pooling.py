"""Second-order pooling: statistic -> normalization -> projection -> element-wise, (B, N, D) local features -> (B, d).

Shapes: B images, N locations, D channels, d dimensions of the embedding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SMALLEST_ROOT = 1e-4
"""The slope of ssqrt is held at 1 / (2 * 1e-4) where |x| < 1e-8: at 0 it is infinite, and many bins of a sketch are 0."""


class _SignedSqrt(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        root = x.abs().sqrt()
        ctx.save_for_backward(root)
        return torch.mul(x.sign(), root)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors
        return torch.div(gradients[0], 2 * root.clamp_min(_SMALLEST_ROOT))


def signed_sqrt(x: Tensor) -> Tensor:
    """`sign(x) sqrt|x|`, exactly; the slope `1 / (2 sqrt|x|)` of the backward is bounded around 0."""
    if torch.is_grad_enabled() and x.requires_grad:
        return _SignedSqrt.apply(x)  # type: ignore[no-any-return]
    return x.sign() * x.abs().sqrt()


def l2_normalize(x_Bd: Tensor) -> Tensor:
    """Rows divided by their length; a zero row stays zero."""
    return F.normalize(x_Bd, dim=1)


class SecondOrderPooling(nn.Module):
    """A statistic of the local features, normalized, projected, and made an embedding by ssqrt and l2.

    Each part is a layer of its own, open to look at; float32 or float64 throughout, also under autocast.
    """

    def __init__(self, statistic: nn.Module, normalization: nn.Module, projection: nn.Module, out_dim: int) -> None:
        super().__init__()
        self.statistic = statistic
        self.normalization = normalization
        self.projection = projection
        self.out_dim = out_dim

    def forward(self, features_BND: Tensor) -> Tensor:
        with torch.autocast(features_BND.device.type, enabled=False):
            matrix_BDD = self.normalization(self.statistic(features_BND))
            return l2_normalize(signed_sqrt(self.projection(matrix_BDD)))
