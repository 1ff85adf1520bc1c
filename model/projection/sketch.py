"""Compact sketches of a matrix, (B, D, D) -> (B, d): random, drawn once from a seed, and unbiased in their inner products.

Both are linear in the Gram matrix, so they run behind any normalization and never see a location:
`sum_n TS(f_n)` is the count sketch of `vec(G)`, one signed scatter of D^2 numbers instead of two FFTs of length d a location.

Sources: Pham and Pagh, Fast and Scalable Polynomial Kernels via Explicit Feature Maps, 2013; Kar and Karnick, Random
Feature Maps for Dot Product Kernels, 2012; Gao et al., Compact Bilinear Pooling, 2016, Algorithms 1 and 2.

Shapes: B images, D channels, d output bins.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rankone.model.shared import at_least_float32, check_matrices, without_autocast


def count_sketch(matrix_BDD: Tensor, bins_DD: Tensor, signs_DD: Tensor, out_dim: int) -> Tensor:
    """Entry (i, j) is added to bin `bins[i, j]` with sign `signs[i, j]`: (B, D, D) -> (B, out_dim).

    `scatter_add`, not `index_add`: the latter exports to ScatterND, whose parallel sum in ONNX Runtime races.
    """
    signed_Bn = (matrix_BDD * signs_DD).flatten(1)
    empty_Bd = signed_Bn.new_zeros(signed_Bn.shape[0], out_dim)
    return empty_Bd.scatter_add(1, bins_DD.flatten().expand_as(signed_Bn), signed_Bn)


def random_maclaurin(matrix_BDD: Tensor, w1_dD: Tensor, w2_dD: Tensor) -> Tensor:
    """`z = rowsum((W1 G) * W2) / sqrt(d)`: (B, D, D) -> (B, d)."""
    return (torch.matmul(w1_dD, matrix_BDD) * w2_dD).sum(dim=2) * float(w1_dD.shape[0] ** -0.5)


class TensorSketch(nn.Module):
    """Tensor Sketch of the second order, (B, D, D) -> (B, out_dim): bin `(h1(i) + h2(j)) mod out_dim`, sign `s1(i) s2(j)`.

    The inner product of two sketches is an unbiased estimate of that of the matrices, with a variance falling as 1/out_dim.
    """

    h1: Tensor
    h2: Tensor
    s1: Tensor
    s2: Tensor
    bins: Tensor
    signs: Tensor

    def __init__(self, dim: int, out_dim: int = 10_000, seed: int = 0) -> None:
        super().__init__()
        _check_sizes(dim, out_dim)
        self.dim, self.out_dim = dim, out_dim
        generator = torch.Generator().manual_seed(seed)
        for name in ("h1", "h2"):
            self.register_buffer(name, torch.randint(out_dim, (dim,), generator=generator))
        for name in ("s1", "s2"):
            self.register_buffer(name, _random_signs((dim,), generator))
        self._tabulate(self)
        self.register_load_state_dict_post_hook(self._tabulate)  # type: ignore[no-untyped-call]

    def forward(self, matrix_BDD: Tensor) -> Tensor:
        check_matrices(matrix_BDD, self.dim)
        matrix_BDD = at_least_float32(matrix_BDD)
        return count_sketch(matrix_BDD, self.bins, self.signs.to(matrix_BDD.dtype), self.out_dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, out_dim={self.out_dim}"

    @staticmethod
    def _tabulate(module: nn.Module, _incompatible: Any = None) -> None:
        """The two tables that `forward` reads, derived again whenever the hashes are loaded."""
        assert isinstance(module, TensorSketch)
        bins_DD = (module.h1[:, None] + module.h2[None, :]) % module.out_dim
        module.register_buffer("bins", bins_DD, persistent=False)
        module.register_buffer("signs", module.s1[:, None] * module.s2[None, :], persistent=False)


class RandomMaclaurin(nn.Module):
    """Random Maclaurin features of the second order, (B, D, D) -> (B, out_dim), with two tables of random signs.

    Unbiased like Tensor Sketch; 2 * out_dim * D numbers to keep and out_dim * D^2 multiply-adds to pay, against D^2.
    """

    w1: Tensor
    w2: Tensor

    def __init__(self, dim: int, out_dim: int = 10_000, seed: int = 0) -> None:
        super().__init__()
        _check_sizes(dim, out_dim)
        self.dim, self.out_dim = dim, out_dim
        generator = torch.Generator().manual_seed(seed)
        for name in ("w1", "w2"):
            self.register_buffer(name, _random_signs((out_dim, dim), generator))

    def forward(self, matrix_BDD: Tensor) -> Tensor:
        check_matrices(matrix_BDD, self.dim)
        with without_autocast(matrix_BDD):
            matrix_BDD = at_least_float32(matrix_BDD)
            return random_maclaurin(matrix_BDD, self.w1.to(matrix_BDD.dtype), self.w2.to(matrix_BDD.dtype))

    def extra_repr(self) -> str:
        return f"dim={self.dim}, out_dim={self.out_dim}"


def _random_signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(2, shape, generator=generator).float() * 2 - 1


def _check_sizes(dim: int, out_dim: int) -> None:
    if dim < 1 or out_dim < 1:
        raise ValueError(f"dim and out_dim must be positive, got {dim} and {out_dim}")
