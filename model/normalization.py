"""Rank-1 update normalization (RUN): damp the largest singular value with a few matrix-vector products.

Source: "Fast Bilinear Matrix Normalization via Rank-1 Update", Algorithm 3. K steps of the power method from a fixed start
v_0 give v_K, which leans towards the first right singular vector of F; `F_K = F - eta (F v_K) v_K^T / ||v_K||^2` takes
`eta` of it away. Here also on the Gram matrix `G = F^T F`, where the same function costs K + 1 products of D^2:

    v_k = G v_{k-1},  u = v_K / ||v_K||,  w = G u,  c = u^T w,   G_K = G - eta (u w^T + w u^T) + eta^2 c u u^T

Hazard: ||v_K||^2 overflows float32 at K = 4, and the update silently becomes nothing. Every v_k is scaled to unit length,
which changes nothing else.

Shapes: B images, N locations, D channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from model.statistics import at_least_float32


def unit(v_BD: Tensor) -> Tensor:
    """Rows scaled to length 1; a zero row stays zero, with finite gradients.

    The largest entry is divided out first, so the squares can neither overflow nor vanish. It is a constant to autograd:
    the direction does not depend on it.
    """
    largest_B1 = v_BD.detach().abs().amax(dim=-1, keepdim=True)
    scaled_BD = v_BD / torch.where(largest_B1 > 0, largest_B1, 1)
    squared_B1 = scaled_BD.square().sum(dim=-1, keepdim=True)
    return scaled_BD * torch.rsqrt(torch.where(squared_B1 > 0, squared_B1, 1))


def rank_one_update(matrix_BDD: Tensor, v0_D: Tensor, eta: float, iterations: int) -> Tensor:
    """RUN on Gram matrices, (B, D, D) -> (B, D, D), symmetric for symmetric input. A zero matrix stays zero."""
    u_BD = _power_method(lambda v_BD: _product(matrix_BDD, v_BD), v0_D.expand(matrix_BDD.shape[:2]), iterations)
    w_BD = _product(matrix_BDD, u_BD)
    c_B1 = (u_BD * w_BD).sum(dim=-1, keepdim=True)
    half_BD = eta * w_BD - (eta * eta / 2) * c_B1 * u_BD
    outer_BDD = half_BD.unsqueeze(2) * u_BD.unsqueeze(1)
    return matrix_BDD - (outer_BDD + outer_BDD.transpose(1, 2))


def rank_one_update_features(features_BND: Tensor, v0_D: Tensor, eta: float, iterations: int) -> Tensor:
    """RUN on local features, Algorithm 3 as the paper writes it: (B, N, D) -> (B, N, D). Zero features stay zero."""

    def gram_product(v_BD: Tensor) -> Tensor:
        return _product(features_BND.transpose(1, 2), _product(features_BND, v_BD))

    batch, _, channels = features_BND.shape
    u_BD = _power_method(gram_product, v0_D.expand(batch, channels), iterations)
    return features_BND - eta * _product(features_BND, u_BD).unsqueeze(2) * u_BD.unsqueeze(1)


class RankOneUpdate(nn.Module):
    """RUN as a layer: `forward` on matrices (B, D, D), `features` on local features (B, N, D); shapes are kept.

    Args:
        dim: D.
        eta: how much of the leading direction is taken away, in [0, 2]; 0 and 2 leave the spectrum as it was.
        iterations: K, the steps of the power method, at least 1.
        seed: draws the start vector v_0, a buffer: the same image always has the same embedding.
        resample: draw a new v_0 in every forward while training, as the paper does; never in evaluation.
    """

    v0: Tensor

    def __init__(
        self, dim: int, eta: float = 0.6, iterations: int = 2, seed: int = 0, *, resample: bool = False
    ) -> None:
        super().__init__()
        if not 0 <= eta <= 2:
            raise ValueError(f"eta must lie in [0, 2], got {eta}")
        if iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {iterations}")
        self.dim, self.eta, self.iterations, self.resample = dim, eta, iterations, resample
        self.register_buffer("v0", torch.randn(dim, generator=torch.Generator().manual_seed(seed)))

    def forward(self, matrix_BDD: Tensor) -> Tensor:
        if matrix_BDD.dim() != 3 or matrix_BDD.shape[1:] != (self.dim, self.dim):
            raise ValueError(f"expected matrices (batch, {self.dim}, {self.dim}), got shape {tuple(matrix_BDD.shape)}")
        return self._update(rank_one_update, matrix_BDD)

    def features(self, features_BND: Tensor) -> Tensor:
        if features_BND.dim() != 3 or features_BND.shape[2] != self.dim:
            raise ValueError(f"expected local features (batch, locations, {self.dim}), got {tuple(features_BND.shape)}")
        return self._update(rank_one_update_features, features_BND)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, eta={self.eta}, iterations={self.iterations}, resample={self.resample}"

    def _update(self, function: Callable[[Tensor, Tensor, float, int], Tensor], x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = at_least_float32(x)
            v0 = torch.randn_like(self.v0) if self.resample and self.training else self.v0
            return function(x, v0.to(x.dtype), self.eta, self.iterations)


def _power_method(product: Callable[[Tensor], Tensor], v_BD: Tensor, iterations: int) -> Tensor:
    for _ in range(iterations):
        v_BD = unit(product(v_BD))
    return v_BD


def _product(matrix_BNM: Tensor, v_BM: Tensor) -> Tensor:
    return (matrix_BNM @ v_BM.unsqueeze(2)).squeeze(2)
