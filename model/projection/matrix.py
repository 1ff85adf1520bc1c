"""Projections that keep entries of the matrix, or of the matrix in a smaller basis: (B, D, D) -> (B, d).

Shapes: B images, D channels, m directions, d dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rankone.model.shared import at_least_float32, check_matrices, without_autocast


class Flatten(nn.Module):
    """The matrix itself, row by row: (B, D, D) -> (B, D * D)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim, self.out_dim = dim, dim * dim

    def forward(self, matrix_BDD: Tensor) -> Tensor:
        check_matrices(matrix_BDD, self.dim)
        return matrix_BDD.flatten(1)


class UpperTriangle(nn.Module):
    """The diagonal and what is above it, row by row: (B, D, D) -> (B, D (D + 1) / 2). No weights of sqrt(2)."""

    entries: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim, self.out_dim = dim, dim * (dim + 1) // 2
        rows, columns = torch.triu_indices(dim, dim)
        self.register_buffer("entries", rows * dim + columns, persistent=False)

    def forward(self, matrix_BDD: Tensor) -> Tensor:
        check_matrices(matrix_BDD, self.dim)
        return matrix_BDD.flatten(1).index_select(1, self.entries)


class LowRank(nn.Module):
    """The matrix in a learned basis, `P^T A P` row by row: (B, D, D) -> (B, m * m).

    Source: Kong and Fowlkes, Low-rank Bilinear Pooling for Fine-Grained Classification, 2017, section 4.1.

    Args:
        dim: D.
        rank: m, at most D.
        seed: draws the orthonormal start of P.
        pca: asks whoever trains for a start at the principal axes of the training images, by `start_at_principal_axes`.
    """

    def __init__(self, dim: int, rank: int = 100, seed: int = 0, *, pca: bool = False) -> None:
        super().__init__()
        if not 1 <= rank <= dim:
            raise ValueError(f"rank must lie in [1, {dim}], got {rank}")
        self.dim, self.rank, self.pca, self.out_dim = dim, rank, pca, rank * rank
        self.weight = nn.Parameter(torch.empty(dim, rank))
        nn.init.orthogonal_(self.weight, generator=torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def start_at_principal_axes(self, matrix_DD: Tensor) -> None:
        """Sets P to the m leading eigenvectors of `matrix_DD`, the mean of what `forward` is given."""
        vectors_DD = torch.linalg.eigh(matrix_DD.double()).eigenvectors
        self.weight.copy_(vectors_DD.flip(1)[:, : self.rank])

    def forward(self, matrix_BDD: Tensor) -> Tensor:
        check_matrices(matrix_BDD, self.dim)
        with without_autocast(matrix_BDD):
            matrix_BDD = at_least_float32(matrix_BDD)
            weight_Dm = self.weight.to(matrix_BDD.dtype)
            return (weight_Dm.T @ matrix_BDD @ weight_Dm).flatten(1)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, rank={self.rank}, pca={self.pca}"
