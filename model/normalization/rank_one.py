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
from typing import Any

import torch
from torch import Tensor, nn

from rankone.model.shared import at_least_float32, check_matrices, without_autocast


def rank_one_update(matrix_BDD: Tensor, v0_D: Tensor, eta: float, iterations: int) -> Tensor:
    """RUN on Gram matrices, (B, D, D) -> (B, D, D), of symmetric ones. A zero matrix stays zero."""
    start_BD = v0_D.expand(matrix_BDD.shape[:2])
    if torch.is_grad_enabled() and matrix_BDD.requires_grad:
        return _RankOneUpdate.apply(matrix_BDD, start_BD, eta, iterations)  # type: ignore[no-any-return]
    directions, _ = _power_method(matrix_BDD, start_BD, iterations)
    w_BD = _product(matrix_BDD, directions[-1])
    return _damped(matrix_BDD, directions[-1], _half(directions[-1], w_BD, eta))


def rank_one_update_features(features_BND: Tensor, v0_D: Tensor, eta: float, iterations: int) -> Tensor:
    """RUN on local features, Algorithm 3 as the paper writes it: (B, N, D) -> (B, N, D). Zero features stay zero."""
    u_BD = v0_D.expand(features_BND.shape[0], features_BND.shape[2])
    for step in range(iterations):
        v_BD = _product(features_BND.transpose(1, 2), _product(features_BND, u_BD))
        u_BD, _ = _unit(v_BD) if step == iterations - 1 else _scaled(v_BD)
    along_BN = _product(features_BND, u_BD)
    return torch.baddbmm(features_BND, along_BN.unsqueeze(2), u_BD.unsqueeze(1), alpha=-eta)


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
        check_matrices(matrix_BDD, self.dim)
        return self._update(rank_one_update, matrix_BDD)

    def features(self, features_BND: Tensor) -> Tensor:
        if features_BND.dim() != 3 or features_BND.shape[2] != self.dim:
            raise ValueError(f"expected local features (batch, locations, {self.dim}), got {tuple(features_BND.shape)}")
        return self._update(rank_one_update_features, features_BND)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, eta={self.eta}, iterations={self.iterations}, resample={self.resample}"

    def _update(self, function: Callable[[Tensor, Tensor, float, int], Tensor], x: Tensor) -> Tensor:
        with without_autocast(x):
            x = at_least_float32(x)
            v0 = torch.randn_like(self.v0) if self.resample and self.training else self.v0
            return function(x, v0.to(x.dtype), self.eta, self.iterations)


class _RankOneUpdate(torch.autograd.Function):
    """`rank_one_update` with its backward by hand: one pass over the D^2 gradient, where autograd makes one for every product.

    With `h = eta w - eta^2 c u / 2`, so that `G_K = G - h u^T - u h^T`, and P = dL/dG_K, the chain rule read backwards is

        dh = -(P + P^T) u,   du = -(P + P^T) h - eta^2 c dh / 2 + dc w,   dc = -eta^2 u^T dh / 2,   dw = eta dh + dc u,
        du <- du + G^T dw,   then for k = K..1:   dv_k = s_k (du - u_k u_k^T du),   du <- G^T dv_k,
        dG = P + dw u^T + sum_k dv_k u_{k-1}^T

    s_k is what v_k was scaled by. For k < K the second term is 0: the length of u_k changes nothing that comes after it.
    """

    @staticmethod
    def forward(ctx: Any, matrix_BDD: Tensor, start_BD: Tensor, eta: float, iterations: int) -> Tensor:
        directions, inverses = _power_method(matrix_BDD, start_BD, iterations)
        w_BD = _product(matrix_BDD, directions[-1])
        ctx.save_for_backward(matrix_BDD, w_BD, *directions, *inverses)
        ctx.eta = eta
        return _damped(matrix_BDD, directions[-1], _half(directions[-1], w_BD, eta))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (p_BDD,), eta = gradients, ctx.eta
        matrix_BDD, w_BD, *saved = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: what was saved beside the matrix has no history of its own
            return _by_autograd(matrix_BDD, saved[0], eta, len(saved) // 2, p_BDD), None, None, None
        directions, inverses = saved[: len(saved) // 2 + 1], saved[len(saved) // 2 + 1 :]
        u_BD = directions[-1]
        uh_B2D = torch.stack([u_BD, _half(u_BD, w_BD, eta)], 1)
        dh_BD, du_BD = (-(uh_B2D @ p_BDD) - uh_B2D @ p_BDD.transpose(1, 2)).unbind(1)
        dc_B1 = -(eta * eta / 2) * _dot(u_BD, dh_BD)
        dw_BD = eta * dh_BD + dc_B1 * u_BD
        du_BD = du_BD - (eta * eta / 2) * _dot(u_BD, w_BD) * dh_BD + dc_B1 * w_BD
        lefts = [dw_BD]
        du_BD = du_BD + _product(matrix_BDD.transpose(1, 2), dw_BD)
        lefts.append((du_BD - _dot(u_BD, du_BD) * u_BD) * inverses[-1])
        for inverse_B1 in reversed(inverses[:-1]):
            lefts.append(_product(matrix_BDD.transpose(1, 2), lefts[-1]) * inverse_B1)
        rights = [directions[-1], *reversed(directions[:-1])]
        return torch.baddbmm(p_BDD, torch.stack(lefts, 2), torch.stack(rights, 1)), None, None, None


def _by_autograd(matrix_BDD: Tensor, start_BD: Tensor, eta: float, iterations: int, p_BDD: Tensor) -> Tensor:
    """The gradient of `rank_one_update` with a history, so that it can be differentiated again; slower."""
    directions, _ = _power_method(matrix_BDD, start_BD, iterations)
    u_BD = directions[-1]
    out_BDD = _damped(matrix_BDD, u_BD, _half(u_BD, _product(matrix_BDD, u_BD), eta))
    return torch.autograd.grad(out_BDD, matrix_BDD, p_BDD, create_graph=True)[0]


def _power_method(matrix_BDD: Tensor, start_BD: Tensor, iterations: int) -> tuple[list[Tensor], list[Tensor]]:
    """The directions u_0 .. u_K, u_0 as given and u_K of length 1, and what v_k was scaled by for k = 1 .. K.

    On the way the largest entry is brought to 1, which keeps squares and products in range as well as the length would, for
    half of the operations: of one image they are as dear as the products.
    """
    directions, inverses = [start_BD], []
    for step in range(iterations):
        v_BD = _product(matrix_BDD, directions[-1])
        u_BD, inverse_B1 = _unit(v_BD) if step == iterations - 1 else _scaled(v_BD)
        directions.append(u_BD)
        inverses.append(inverse_B1)
    return directions, inverses


def _unit(v_BD: Tensor) -> tuple[Tensor, Tensor]:
    """Rows scaled to length 1, and the inverse of their lengths; a zero row stays zero.

    The largest entry is divided out first, so the squares can neither overflow nor vanish. What is left has length 1 at
    least, or 0.
    """
    scaled_BD, inverse_B1 = _scaled(v_BD)
    length_B1 = torch.linalg.vector_norm(scaled_BD, dim=-1, keepdim=True).clamp_min(1)
    return scaled_BD / length_B1, inverse_B1 / length_B1


def _scaled(v_BD: Tensor) -> tuple[Tensor, Tensor]:
    """Rows whose largest entry is 1, and the inverse of what it was; a zero row stays zero.

    The scale is a constant to autograd: the direction does not depend on it.
    """
    largest_B1 = torch.linalg.vector_norm(v_BD.detach(), ord=torch.inf, dim=-1, keepdim=True)
    inverse_B1 = largest_B1.clamp_min(torch.finfo(v_BD.dtype).tiny).reciprocal()
    return v_BD * inverse_B1, inverse_B1


def _half(u_BD: Tensor, w_BD: Tensor, eta: float) -> Tensor:
    """`h = eta w - eta^2 c u / 2`: half of what is taken away is `h u^T`, the other half its transpose."""
    return eta * w_BD - (eta * eta / 2) * _dot(u_BD, w_BD) * u_BD


def _damped(matrix_BDD: Tensor, u_BD: Tensor, half_BD: Tensor) -> Tensor:
    """`G - h u^T - u h^T`, both added along the rows: summed with its own transpose it would take 20 times as long."""
    out_BDD = torch.addcmul(matrix_BDD, -half_BD.unsqueeze(2), u_BD.unsqueeze(1))
    return out_BDD.addcmul_(u_BD.unsqueeze(2), -half_BD.unsqueeze(1))


def _product(matrix_BNM: Tensor, v_BM: Tensor) -> Tensor:
    """`M v` for every image, as `v^T M^T`: torch multiplies a batch by rows up to ten times faster than by columns."""
    return (v_BM.unsqueeze(1) @ matrix_BNM.transpose(1, 2)).squeeze(1)


def _dot(a_BD: Tensor, b_BD: Tensor) -> Tensor:
    return (a_BD * b_BD).sum(dim=-1, keepdim=True)
