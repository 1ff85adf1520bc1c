"""Inner products on a GPU, and how far they can be off: the only place that depends on how a device adds up.

A matrix product adds in an order of its own, and tensor cores cut where others round; so each is made of sums of few terms,
whose error has a bound that is worth something. `faiss.knn_gpu` on the same rows is 2.5 to 5 times as slow in float16, which
it multiplies without tensor cores, and equally fast in float32 (docs/results/gpu.md).
"""

from __future__ import annotations

from math import ceil, log2, sqrt
from typing import Final

import torch
from torch import Tensor

TERMS: Final = 1024
"""Of a sum that is left to a matrix product."""


def use_full_precision() -> None:
    """Forbids what `rounding` does not allow for: TF32 has 10 bits, and sums in float16 have 11."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.matmul.allow_fp16_accumulation = False


def products(queries: Tensor, rows: Tensor) -> Tensor:
    """Inner products (m, n) float32 of queries (m, dim) and rows (n, dim), both float16 or both float32, within `rounding`."""
    scores = torch.zeros(len(queries), len(rows), device=rows.device)
    for asked, stored in zip(queries.split(TERMS, dim=1), rows.split(TERMS, dim=1), strict=True):
        scores += _product(asked, stored.T)
    return scores


def _product(left: Tensor, right: Tensor) -> Tensor:
    if left.dtype == torch.float16 and left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()


def rounding(dim: int, dtype: torch.dtype) -> float:
    """More than two inner products of unit vectors differ by, that of `products` in `dtype` and that by `row_sums`.

    A sum of n products that are rounded or cut to 24 bits, in any order, is off by up to n 2^-23 (Higham, Accuracy and
    Stability of Numerical Algorithms, 3.1), one by halves of log2 d levels by (log2 d + 1) 2^-24. A query in float16 is off by
    2^-11 of each of its values, or 2^-25 where that is more, and the product by no more than the length of that, by
    Cauchy-Schwarz.
    """
    query = 2**-11 + sqrt(dim) * 2**-25 if dtype == torch.float16 else 0.0
    sums = (min(dim, TERMS) + 1) * 2**-23 + ceil(dim / TERMS) * 2**-24
    halves = (ceil(log2(dim)) + 1) * 2**-24
    return 1.01 * (
        query + sums + halves
    )  # lengths are 1 but for their rounding, and the terms of second order are smaller yet


def row_sums(products: Tensor) -> Tensor:
    """Sums (n,) of rows (n, dim), which are used up.

    Halves are added to each other: the same order, hence the same bits, wherever a row lies, whoever is there, on any device.
    """
    width = products.shape[1]
    while width > 1:
        half = (width + 1) // 2
        products[:, : width - half] += products[:, half:width]
        width = half
    return products[:, 0]
