"""Newton-Schulz iteration: an approximate matrix square root from matrix products alone.

Source: Li et al., Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix Square Root Normalization
(iSQRT-COV), 2018, equations 4 to 6. With `c = tr A`, `Y = A / c` and `Z = I`, repeated: `T = (3 I - Z Y) / 2`, `Y <- Y T`,
`Z <- T Z`; the result is `sqrt(c) Y`.

Hazard: five steps are not the square root. An eigenvalue grows at most 1.5-fold a step, so those under 1 % of the trace are
still far from their root; at D = 512 the result is about half of it off. That is what the published systems compute.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rankone.model.shared import at_least_float32, check_matrices, without_autocast


def newton_schulz_root(matrix_BDD: Tensor, iterations: int) -> Tensor:
    """`iterations` steps towards the square root of positive semi-definite matrices, (B, D, D); a zero matrix stays zero.

    The first step has Z = I and the last one needs no Z, so n steps take 3 n - 3 products instead of 3 n.
    """
    trace_B11 = matrix_BDD.diagonal(dim1=1, dim2=2).sum(dim=1).view(-1, 1, 1)
    scale_B11 = torch.where(trace_B11 > 0, trace_B11, 1)
    y_BDD = matrix_BDD / scale_B11
    z_BDD = torch.eye(matrix_BDD.shape[1], dtype=matrix_BDD.dtype, device=matrix_BDD.device)
    identity_DD = z_BDD
    for step in range(iterations):
        product_BDD = y_BDD if step == 0 else z_BDD @ y_BDD
        t_BDD = (3 * identity_DD - product_BDD) / 2
        y_BDD = y_BDD @ t_BDD
        if step < iterations - 1:
            z_BDD = t_BDD if step == 0 else t_BDD @ z_BDD
    return scale_B11.sqrt() * y_BDD


class NewtonSchulz(nn.Module):
    """`newton_schulz_root` as a layer, (B, D, D) -> (B, D, D), in float32 or float64 also under autocast.

    Args:
        dim: D.
        iterations: steps, at least 1.
    """

    def __init__(self, dim: int, iterations: int = 5) -> None:
        super().__init__()
        if iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {iterations}")
        self.dim, self.iterations = dim, iterations

    def forward(self, matrix_BDD: Tensor) -> Tensor:
        check_matrices(matrix_BDD, self.dim)
        with without_autocast(matrix_BDD):
            return newton_schulz_root(at_least_float32(matrix_BDD), self.iterations)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, iterations={self.iterations}"
