"""LRBP's own classifier: a bilinear score of low rank, beside the linear one on embeddings.

Shapes: B images, m directions, C classes, r rank.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rankone.model.shared import at_least_float32, without_autocast


class LowRankClassifier(nn.Module):
    """`s_c = ||U_c^T X||^2 - ||V_c^T X||^2 + b_c`, with U_c and V_c of rank / 2 columns each.

    `forward` takes the flattened matrix `X X^T` (B, m * m) that a low-rank projection ends in: m^2 r multiply-adds a class. In
    float32 or float64 also under autocast: a score is a difference of two large energies.

    Source: Kong and Fowlkes, Low-rank Bilinear Pooling for Fine-Grained Classification, 2017, equation 7.

    Args:
        dim: m.
        num_classes: C.
        rank: r, even: half for, half against a class.
        seed: draws the start; at zero the gradient would be zero too.
    """

    def __init__(self, dim: int, num_classes: int, rank: int = 8, seed: int = 0) -> None:
        super().__init__()
        if rank < 2 or rank % 2:
            raise ValueError(f"the rank of the classifier must be even and at least 2, got {rank}")
        self.dim, self.rank = dim, rank
        start = torch.randn(2, num_classes, dim, rank // 2, generator=torch.Generator().manual_seed(seed))
        self.positive, self.negative = (nn.Parameter(half / math.sqrt(dim)) for half in start)
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def forward(self, pooled_Bd: Tensor) -> Tensor:
        if pooled_Bd.dim() != 2 or pooled_Bd.shape[1] != self.dim**2:
            raise ValueError(f"expected flattened matrices (batch, {self.dim**2}), got shape {tuple(pooled_Bd.shape)}")
        with without_autocast(pooled_Bd):
            weight_Cmm = self.positive @ self.positive.transpose(1, 2) - self.negative @ self.negative.transpose(1, 2)
            return at_least_float32(pooled_Bd) @ weight_Cmm.flatten(1).T + self.bias

    def extra_repr(self) -> str:
        return f"dim={self.dim}, rank={self.rank}"
