"""Pooling: statistic -> normalization -> projection -> element-wise, (B, N, D) local features -> (B, d).

Shapes: B images, N locations, D channels, d dimensions of the embedding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rankone.model.shared import at_least_float32, without_autocast

_SMALLEST_ROOT = 1e-4
_SMALLEST_SHARE = 0.1


class _SignedSqrt(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        signed = torch.mul(x.sign(), x.abs().sqrt())
        ctx.save_for_backward(signed)
        return signed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        root = ctx.saved_tensors[0].abs()
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


class Pooling(nn.Module):
    """A statistic of the local features, normalized, projected, and made an embedding by the element-wise step.

    Each part is a layer of its own, open to look at; float32 or float64 throughout, also under autocast.

    Args:
        statistic: (B, N, D) -> (B, dim, dim), or (B, dim) for a first-order one.
        normalization: keeps that shape.
        projection: that shape -> (B, out_dim).
        out_dim: d.
        root_features: take the signed square root of the local features first.
        elementwise: end with ssqrt and l2; without, the projection is the result.
    """

    def __init__(
        self,
        statistic: nn.Module,
        normalization: nn.Module,
        projection: nn.Module,
        out_dim: int,
        *,
        root_features: bool = False,
        elementwise: bool = True,
    ) -> None:
        super().__init__()
        self.statistic = statistic
        self.normalization = normalization
        self.projection = projection
        self.out_dim = out_dim
        self.root_features = root_features
        self.elementwise = elementwise

    def forward(self, features_BND: Tensor) -> Tensor:
        return self.finish(self.pool(features_BND))

    def matrix(self, features_BND: Tensor) -> Tensor:
        """The normalized statistic, before it is projected."""
        with without_autocast(features_BND):
            if self.root_features:
                features_BND = signed_sqrt(at_least_float32(features_BND).flatten(1)).view(features_BND.shape)
            return self.normalization(self.statistic(features_BND))  # type: ignore[no-any-return]

    def pool(self, features_BND: Tensor) -> Tensor:
        """The projected vector, (B, N, D) -> (B, d), before the element-wise step."""
        with without_autocast(features_BND):
            return self.projection(self.matrix(features_BND))  # type: ignore[no-any-return]

    def finish(self, pooled_Bd: Tensor) -> Tensor:
        """The element-wise step, where the system has one: (B, d) -> (B, d)."""
        return l2_normalize(signed_sqrt(pooled_Bd)) if self.elementwise else pooled_Bd
