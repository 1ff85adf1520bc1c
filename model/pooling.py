"""Second-order pooling: statistic -> normalization -> projection -> element-wise, (B, N, D) local features -> (B, d).

Shapes: B images, N locations, D channels, d dimensions of the embedding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SMALLEST_ROOT = 1e-4
_SMALLEST_SHARE = 0.1


class _SignedSqrt(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        root = x.abs().sqrt()
        ctx.save_for_backward(root)
        return torch.mul(x.sign(), root)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors
        rms = root.square().mean(dim=-1, keepdim=True).sqrt()
        return torch.div(gradients[0], 2 * torch.maximum(root, (_SMALLEST_SHARE * rms).clamp_min(_SMALLEST_ROOT)))


def signed_sqrt(x: Tensor) -> Tensor:
    """`sign(x) sqrt|x|`, exactly, (B, d) -> (B, d).

    The slope `1 / (2 sqrt|x|)` is infinite at 0, and many bins of a sketch are near it. The backward bounds it by the slope
    where `sqrt|x|` is a tenth of its root mean square over the image: relative, as an embedding does not depend on scale.
    """
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
