"""The exact gallery on a GPU: rows stay there, in the type they have on disk, and torch multiplies them.

Only matrices of one type are multiplied, so float16 rows are ranked by queries rounded to float16, with sums in float32. The
final scores are those of the queries as they came. `faiss.knn_gpu` on the same rows takes 2.5 to 5 times as long in float16,
as it does not use tensor cores (docs/results/gpu.md).
"""

from __future__ import annotations

from math import ceil, log2, sqrt
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rankone.index.errors import DeviceProblem
from rankone.index.exact import BlockGallery
from rankone.index.gallery import Candidates, Rows, Vectors

_LEAST_BYTES: Final = 1 << 29
_MOST_BYTES: Final = 1 << 32
"""Each block is as large as all before it together, within these limits: a product with few rows leaves most of a GPU idle."""
_RESERVE_BYTES: Final = 1 << 30
"""Memory that a block leaves free, if it can be smaller: for searches, and for a model that is loaded beside this one."""
_SCRATCH_BYTES: Final = 1 << 28
"""For the inner products of all queries with as many rows as that allows, and as much again to add them up."""
_LEAST_FOUND: Final = 128
"""Fetching so many costs less than a second pass over all rows, which the bound on the rounding may call for."""
_PAIRS: Final = 4096
_TERMS: Final = 1024
"""Terms of a sum that is left to a matrix product: the bound on its rounding grows with them."""


class GpuGallery(BlockGallery):
    """Rows (n, dim) of type `stored`. On the device "cpu", only the product of two float16 matrices differs."""

    def __init__(self, dim: int, stored: np.dtype[Any], device: str = "cuda") -> None:
        self._dtype, self._device = (torch.float16 if stored.itemsize == 2 else torch.float32), torch.device(device)
        self._dim, self._row_bytes = dim, stored.itemsize * dim
        self._least_height, self._most_height = (max(1, n // self._row_bytes) for n in (_LEAST_BYTES, _MOST_BYTES))
        super().__init__(rounding(dim, self._dtype), _LEAST_FOUND, _SCRATCH_BYTES, self._least_height)
        torch.backends.cuda.matmul.allow_tf32 = False  # `rounding` allows for neither 10 bits of a number
        torch.backends.cuda.matmul.allow_fp16_accumulation = False  # nor 11 bits of a sum

    def nearest(self, queries: Vectors, k: int, rows: Rows) -> list[Candidates]:
        try:
            return super().nearest(queries, k, rows)
        except torch.OutOfMemoryError as error:
            raise DeviceProblem(
                "the GPU has no memory left for a search: ask for less at once, set RANKONE_DEVICE=cpu, or make the index "
                f"compact ({error})"
            ) from error

    def _new_block(self, capacity: int) -> Tensor:
        height = min(max(capacity, self._least_height), self._most_height)
        while height > self._least_height and height * self._row_bytes + _RESERVE_BYTES > free_bytes(self._device):
            height = max(height // 2, self._least_height)
        try:
            return torch.empty(height, self._dim, dtype=self._dtype, device=self._device)
        except torch.OutOfMemoryError as error:
            raise DeviceProblem(
                f"the GPU has no memory for {height:,} more rows of an index: set RANKONE_DEVICE=cpu, or make the index "
                f"compact ({error})"
            ) from error

    def _on_device(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.tensor(array, device=self._device)

    def _best(self, asked: Tensor, part: Tensor, k: int) -> tuple[Vectors, Rows]:
        scores, places = products(asked.to(self._dtype), part).topk(k)
        return scores.cpu().numpy(), places.cpu().numpy()

    def _products(self, asked: Tensor, asking: Rows, block: Tensor, places: Rows) -> Vectors:
        scores = np.empty(len(places), np.float32)
        for pairs in (slice(start, start + _PAIRS) for start in range(0, len(places), _PAIRS)):
            terms = asked[self._on_device(asking[pairs])] * block[self._on_device(places[pairs])]
            scores[pairs] = row_sums(terms).cpu().numpy()
        return scores


def free_bytes(device: torch.device) -> float:
    """Free memory of a GPU; unlimited for the CPU."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")


def products(queries: Tensor, rows: Tensor) -> Tensor:
    """Inner products (m, n) float32 of queries (m, dim) and rows (n, dim), both float16 or both float32, within `rounding`."""
    scores = torch.zeros(len(queries), len(rows), device=rows.device)
    for left, right in zip(queries.split(_TERMS, dim=1), rows.split(_TERMS, dim=1), strict=True):
        if left.dtype == torch.float16 and left.is_cuda:
            scores += torch.mm(left, right.T, out_dtype=torch.float32)
        else:
            scores += left.float() @ right.float().T
    return scores


def row_sums(terms: Tensor) -> Tensor:
    """The sums (n,) of rows (n, dim), which it overwrites.

    It adds the second half of a row to the first, again and again: the order, and so every bit, is the same on any device.
    """
    width = terms.shape[1]
    while width > 1:
        half = (width + 1) // 2
        terms[:, : width - half] += terms[:, half:width]
        width = half
    return terms[:, 0]


def rounding(dim: int, dtype: torch.dtype) -> float:
    """Bound on the difference of two inner products of unit vectors, by `products` in `dtype` and by `row_sums`.

    A sum of n products rounded or cut to 24 bits, in any order, is off by up to n 2^-23 (Higham, Accuracy and Stability of
    Numerical Algorithms, 3.1); `row_sums`, with log2 d levels, by (log2 d + 1) 2^-24. Rounding a query to float16 changes each
    value by 2^-11 of it, or 2^-25 if that is more, and by Cauchy-Schwarz a product by at most the length of that change.
    """
    query = 2**-11 + sqrt(dim) * 2**-25 if dtype == torch.float16 else 0.0
    sums = (min(dim, _TERMS) + 1) * 2**-23 + ceil(dim / _TERMS) * 2**-24
    halves = (ceil(log2(dim)) + 1) * 2**-24
    return 1.01 * (query + sums + halves)  # lengths are 1 up to rounding, and terms of second order are smaller still
