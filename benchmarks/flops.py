"""FLOPs of a call, counted while it runs: matrix products, two a multiply-add, and decompositions by their textbook counts.

torch's own counter sees every product. Decompositions happen within LAPACK, so they are counted by the formulas of Golub and
Van Loan, Matrix Computations, for R-SVD and the symmetric QR algorithm. Element-wise work is left out: it is bound by memory,
and the paper leaves it out too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

Shape = tuple[int, ...]


def count_flops(call: Callable[[], object]) -> int:
    """The FLOPs of one call."""
    formulas = {torch.ops.aten._linalg_eigh: _eigh, torch.ops.aten._linalg_svd: _svd}
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        call()
    return int(counter.get_total_flops())


def eigh_flops(n: int) -> int:
    """Eigenvalues and eigenvectors of a symmetric n x n matrix, `9 n^3`."""
    return 9 * n**3


def svd_flops(rows: int, columns: int) -> int:
    """Thin SVD with both sides of vectors, `6 m n^2 + 20 n^3` with m >= n."""
    m, n = max(rows, columns), min(rows, columns)
    return 6 * m * n**2 + 20 * n**3


def _eigh(shape: Shape, *_: Any, **__: Any) -> int:
    return _count(shape) * eigh_flops(shape[-1])


def _svd(shape: Shape, *_: Any, **__: Any) -> int:
    return _count(shape) * svd_flops(shape[-2], shape[-1])


def _count(shape: Shape) -> int:
    return int(torch.Size(shape[:-2]).numel())
