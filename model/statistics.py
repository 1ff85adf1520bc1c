"""Second-order statistics of local features: what a pooling system knows of an image.

Shapes: B images, N locations, D channels; `features_BND` has one row a location.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32, or as it is in float64: everything behind the backbone is summed at this precision."""
    return x if x.dtype == torch.float64 else x.float()


def gram(features_BND: Tensor) -> Tensor:
    """`F^T F / N`, (B, N, D) -> (B, D, D), in float32 or float64 whatever the features come in.

    F is scaled by 1/sqrt(N) before the product: summed first, the entries of a real image pass float16's 65,504.
    Source: Lin et al., Bilinear CNN Models for Fine-grained Visual Recognition, 2015, equation 1, averaged.
    """
    if features_BND.dim() != 3:
        raise ValueError(f"local features must be (batch, locations, channels), got shape {tuple(features_BND.shape)}")
    with torch.autocast(features_BND.device.type, enabled=False):
        scaled_BND = at_least_float32(features_BND) * features_BND.shape[1] ** -0.5
        return torch.matmul(scaled_BND.transpose(1, 2), scaled_BND)


class Gram(nn.Module):
    """`gram` as a layer, (B, N, D) -> (B, D, D)."""

    def forward(self, features_BND: Tensor) -> Tensor:
        return gram(features_BND)
