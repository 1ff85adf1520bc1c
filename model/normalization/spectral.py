"""Functions of the eigenvalues: `U f(L) U^T` for symmetric positive semi-definite `A = U L U^T`.

Their derivative is that of Daleckii and Krein, never autograd through the eigendecomposition, which is NaN at equal
eigenvalues:

    dA = U [(U^T P U) * Q] U^T,   Q_ij = (f(l_i) - f(l_j)) / (l_i - l_j),   Q_ii = f'(l_i),   P = dL/df(A)

Eigenvalues that are zero but for rounding are set to 0. Where the slope is infinite there (a root), Q between two of them is 0:
the features of an image have no part in those directions, so nothing reaches them through the others.

Source: Ionescu et al., Matrix Backpropagation for Deep Networks with Structured Layers, 2015; Bhatia, Matrix Analysis, V.3.
Precision: float64 inside whatever comes in, as a root turns rounding of 1e-7 into 3e-4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rankone.model.shared import at_least_float32, check_matrices, without_autocast

Divided = Callable[[Tensor, Tensor], Tensor]
"""(f(a) - f(b)) / (a - b), and f'(a) where a = b, for arrays of eigenvalues that broadcast."""


def matrix_power(matrix_BDD: Tensor, power: float = 0.5, eps: float = 0.0) -> Tensor:
    """`f(l) = (l + eps)^power`, (B, D, D) -> (B, D, D), in the dtype that came in."""

    def function(values: Tensor) -> Tensor:
        return (values + eps) ** power

    def divided(a: Tensor, b: Tensor) -> Tensor:
        a, b = a + eps, b + eps
        if power == 0.5:  # exactly, also for neighbours: no difference of nearly equal numbers
            total = a.sqrt() + b.sqrt()
            return torch.where(total > 0, 1 / total, 0.0)
        return _divided_power(power, a, b)

    return _apply(matrix_BDD, function, divided)


def matrix_logarithm(matrix_BDD: Tensor, eps: float = 1e-3) -> Tensor:
    """`f(l) = log(l + eps)`, (B, D, D) -> (B, D, D), in the dtype that came in."""

    def function(values: Tensor) -> Tensor:
        return (values + eps).log()

    def divided(a: Tensor, b: Tensor) -> Tensor:
        low = torch.minimum(a, b) + eps
        ratio = (a - b).abs() / low  # log1p(x) / x is exact where the difference of two logarithms is not
        return torch.where(ratio == 0, 1.0, torch.log1p(ratio) / torch.where(ratio == 0, 1.0, ratio)) / low

    return _apply(matrix_BDD, function, divided)


class _Spectral(nn.Module):
    needs_eigendecomposition: ClassVar[bool] = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, matrix_BDD: Tensor) -> Tensor:
        check_matrices(matrix_BDD, self.dim)
        with without_autocast(matrix_BDD):
            out_BDD: Tensor = self._function(at_least_float32(matrix_BDD))
            return out_BDD

    def _function(self, matrix_BDD: Tensor) -> Tensor:
        raise NotImplementedError


class MatrixPower(_Spectral):
    """`matrix_power` as a layer, (B, D, D) -> (B, D, D); the square root by default.

    Args:
        dim: D.
        power: alpha, above 0 and at most 1.
        eps: added to every eigenvalue, at least 0, finite.
    """

    def __init__(self, dim: int, power: float = 0.5, eps: float = 0.0) -> None:
        super().__init__(dim)
        if not 0 < power <= 1:
            raise ValueError(f"power must lie above 0 and be at most 1, got {power}")
        if not 0 <= eps < math.inf:
            raise ValueError(f"eps must be finite and not negative, got {eps}")
        self.power, self.eps = power, eps

    def _function(self, matrix_BDD: Tensor) -> Tensor:
        return matrix_power(matrix_BDD, self.power, self.eps)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, power={self.power}, eps={self.eps}"


class MatrixLogarithm(_Spectral):
    """`matrix_logarithm` as a layer, (B, D, D) -> (B, D, D).

    Args:
        dim: D.
        eps: added to every eigenvalue, above 0: the logarithm of a rank-deficient matrix is infinite without it.
    """

    def __init__(self, dim: int, eps: float = 1e-3) -> None:
        super().__init__(dim)
        if not 0 < eps < math.inf:
            raise ValueError(f"eps must be finite and positive, got {eps}")
        self.eps = eps

    def _function(self, matrix_BDD: Tensor) -> Tensor:
        return matrix_logarithm(matrix_BDD, self.eps)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, eps={self.eps}"


class _SpectralFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix_BDD: Tensor, function: Callable[[Tensor], Tensor], divided: Divided) -> Tensor:
        values_BD, vectors_BDD = torch.linalg.eigh(matrix_BDD.double())
        values_BD = _without_rounding(values_BD)
        ctx.save_for_backward(values_BD, vectors_BDD)
        ctx.divided = divided
        out_BDD: Tensor = (vectors_BDD * function(values_BD).unsqueeze(1)) @ vectors_BDD.transpose(1, 2)
        return out_BDD.to(matrix_BDD.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        values_BD, vectors_BDD = ctx.saved_tensors
        p_BDD = gradients[0].double()
        q_BDD = ctx.divided(values_BD.unsqueeze(2), values_BD.unsqueeze(1))
        inner_BDD = (vectors_BDD.transpose(1, 2) @ p_BDD @ vectors_BDD) * q_BDD
        out_BDD = vectors_BDD @ inner_BDD @ vectors_BDD.transpose(1, 2)
        return out_BDD.to(gradients[0].dtype), None, None


def _apply(matrix_BDD: Tensor, function: Callable[[Tensor], Tensor], divided: Divided) -> Tensor:
    return _SpectralFunction.apply(matrix_BDD, function, divided)  # type: ignore[no-any-return]


def _without_rounding(values_BD: Tensor) -> Tensor:
    """Eigenvalues with 0 for those below what the decomposition can tell from 0."""
    smallest_B1 = values_BD.amax(dim=1, keepdim=True) * (values_BD.shape[1] * torch.finfo(values_BD.dtype).eps)
    return torch.where(values_BD > smallest_B1, values_BD, 0.0)


def _divided_power(power: float, a: Tensor, b: Tensor) -> Tensor:
    """Divided differences of `x^power`; of neighbours, whose difference is mostly rounding, the slope between."""
    difference, middle = a - b, (a + b) / 2
    near = difference.abs() <= 1e-5 * middle
    slope = power * torch.where(middle > 0, middle, torch.inf) ** (power - 1)
    quotient = (a**power - b**power) / torch.where(near, 1.0, difference)
    return torch.where(near, slope, quotient)
