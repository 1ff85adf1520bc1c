"""The exact gallery on a GPU: rows in blocks that stay there, in the type they have on disk, all compared with every query.

faiss multiplies matrices of one type, so float16 rows are ranked by queries rounded to float16, with sums in float32. `bound`
covers that rounding; `scores` are of the queries as they came. Only the search thread comes here, and each gallery has
resources of faiss of its own: they are not safe for several threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import ceil, log2, sqrt
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from service.index.directory import Rows
from service.index.errors import DeviceProblem
from service.index.vectors import Stored, Vectors

_BLOCK_BYTES: Final = 1 << 29
"""Long to read beside the launch of a kernel; an index takes as much at least."""
_SCRATCH_BYTES: Final = 1 << 28
"""Of faiss, instead of 1.5 GB an index."""
_MAX_K: Final = 2048
"""faiss ends the process where more are asked for."""
_LEAST: Final = 64
"""Found at least: cheaper than a second pass over everything, where `bound` leaves a doubt."""
_PAIRS: Final = 4096
"""Products that are held at once, of so many vectors."""

Knn = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""(m, dim) and (n, dim) of one type, k <= n -> the k largest inner products (m, k), best first, and their rows (m, k)."""


class GpuMatrix:
    """Rows (n, dim), 0 to n - 1, of type `stored`. On the device "cpu" all is the same but the call of faiss."""

    def __init__(self, dim: int, stored: np.dtype[Any], device: str = "cuda") -> None:
        self._dim, self._stored, self._device = dim, stored, torch.device(device)
        self._dtype = torch.float16 if stored.itemsize == 2 else torch.float32
        self._height = max(1, _BLOCK_BYTES // (stored.itemsize * dim))
        self._blocks: list[Tensor] = []
        self._knn = knn_on_gpu() if device == "cuda" else knn_on_cpu
        self._rounding = rounding(dim, self._dtype)

    def set(self, row: int, vectors: Stored) -> None:
        """Writes rows (n, dim) from `row` on, which lies one behind the last at most.

        Raises:
            DeviceProblem: the device has no memory for another block.
        """
        while len(vectors):
            block, place = divmod(row, self._height)
            if block == len(self._blocks):
                self._blocks.append(self._new_block())
            part = self._blocks[block][place : place + len(vectors)]
            part.copy_(torch.from_numpy(vectors[: len(part)].astype(self._stored)))
            row, vectors = row + len(part), vectors[len(part) :]

    def move(self, hole: int, last: int) -> None:
        """Fills `hole` with the row `last`, which is the end from now on."""
        block, place = divmod(last, self._height)
        if hole != last:
            self._blocks[hole // self._height][hole % self._height] = self._blocks[block][place]
        if place == 0:
            del self._blocks[block:]

    def nearest(self, queries: Vectors, k: int, rows: Rows | int) -> tuple[Vectors, Rows]:
        """Inner products and rows of at least k nearest among `rows` (all below a number), best first, within `bound`.

        Where faiss cannot give k of a block, it gives all of what is cut as small as that.
        """
        asked, k = self._here(queries).to(self._dtype), max(k, _LEAST)
        scores = torch.empty(len(asked), 0, device=self._device)
        numbers = torch.empty(len(asked), 0, dtype=torch.int64, device=self._device)
        for part, there in self._parts(rows, self._height if k <= _MAX_K else _MAX_K):
            found, places = self._knn(asked, part, min(k, len(part)))
            scores, order = torch.cat([scores, found], 1).sort(dim=1, descending=True, stable=True)
            numbers = torch.cat([numbers, there[places]], 1).gather(1, order)[:, :k]
            scores = scores[:, :k]
        return scores.cpu().numpy(), numbers.cpu().numpy()

    def scores(self, queries: Vectors, rows: Rows) -> Vectors:
        """The inner product of every query (m, dim) with its rows (m, k), always added up in the same order."""
        flat, asked = rows.ravel(), self._here(queries)
        order = np.argsort(flat, kind="stable")
        scores = np.empty(len(flat), np.float32)
        for pairs in (order[start : start + _PAIRS] for start in range(0, len(order), _PAIRS)):
            products = asked[self._here(pairs // rows.shape[1])] * self._gathered(flat[pairs])
            scores[pairs] = row_sums(products).cpu().numpy()
        return scores.reshape(rows.shape)

    def bound(self, last: float) -> float:
        """What no row that `nearest` left out can exceed, if `last` is the lowest score that it found."""
        return last + self._rounding

    def _parts(self, rows: Rows | int, height: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Dense matrices of up to `height` rows that together hold `rows`, with their numbers."""
        for start, block in zip(range(0, len(self._blocks) * self._height, self._height), self._blocks, strict=True):
            end = start + self._height
            here: Sequence[int] | Rows = (
                range(start, min(rows, end)) if isinstance(rows, int) else _between(rows, start, end)
            )
            for low in range(0, len(here), height):
                yield self._dense(block, start, here[low : low + height])

    def _dense(self, block: Tensor, start: int, rows: Sequence[int] | Rows) -> tuple[Tensor, Tensor]:
        """A view where the rows lie side by side, else what is gathered of the block that begins with row `start`."""
        first, end = int(rows[0]), int(rows[-1]) + 1
        if end - first == len(rows):
            return block[first - start : end - start], torch.arange(first, end, device=self._device)
        numbers = self._here(np.asarray(rows))
        return block.index_select(0, numbers - start), numbers

    def _gathered(self, rows: Rows) -> Tensor:
        """The rows with these numbers (n,), ascending, some of them several times: (n, dim)."""
        places = self._here(rows % self._height)
        cuts = np.searchsorted(rows, np.arange(len(self._blocks) + 1) * self._height)
        parts = zip(self._blocks, cuts[:-1], cuts[1:], strict=True)
        return torch.cat([block.index_select(0, places[low:high]) for block, low, high in parts if low < high])

    def _here(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _new_block(self) -> Tensor:
        try:
            return torch.empty(self._height, self._dim, dtype=self._dtype, device=self._device)
        except torch.OutOfMemoryError as error:
            raise DeviceProblem(
                f"the GPU has no memory for {self._height:,} more rows of an index: set RANKONE_DEVICE=cpu, or make the "
                f"index compact ({error})"
            ) from error


def rounding(dim: int, dtype: torch.dtype) -> float:
    """More than the two inner products of unit vectors differ by, that of `nearest` and that of `scores`.

    A sum of d products that are rounded or cut to 24 bits, in any order, is off by up to d 2^-23 (Higham, Accuracy and
    Stability of Numerical Algorithms, 3.1), one by halves of log2 d levels by (log2 d + 1) 2^-24. A query in float16 is off by
    2^-11 of each of its values, or 2^-25 where that is more, and the product by no more than the length of that, by
    Cauchy-Schwarz.
    """
    query = 2**-11 + sqrt(dim) * 2**-25 if dtype == torch.float16 else 0.0
    sums = (dim + 1) * 2**-23 + (ceil(log2(dim)) + 1) * 2**-24
    return 1.01 * (query + sums)  # lengths are 1 but for their rounding, and the terms of second order are smaller yet


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


def knn_on_cpu(queries: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Of faiss in float32."""
    found = faiss.knn(queries.float().numpy(), rows.float().numpy(), k, metric=faiss.METRIC_INNER_PRODUCT)
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


def knn_on_gpu() -> Knn:
    """Of faiss on the current GPU, with resources that are the caller's alone."""
    import faiss.contrib.torch_utils  # it changes faiss: tensors are taken, and their stream is waited for

    resources = faiss.StandardGpuResources()
    resources.setTempMemory(_SCRATCH_BYTES)
    resources.setPinnedMemory(0)
    return partial(faiss.knn_gpu, resources, metric=faiss.METRIC_INNER_PRODUCT)


def _between(rows: Rows, start: int, end: int) -> Rows:
    low, high = np.searchsorted(rows, (start, end))
    return rows[low:high]
