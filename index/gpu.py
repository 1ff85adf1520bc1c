"""The exact gallery on a GPU: rows that stay there, in the type they have on disk, all compared with every query.

Matrices of one type are multiplied, so float16 rows are ranked by queries rounded to float16, with sums in float32. `bound`
covers that rounding; `scores` are of the queries as they came. Only the search thread comes here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil, log2, sqrt
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rankone.index.errors import DeviceProblem
from rankone.index.gallery import Rows, Stored, Vectors

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


_LEAST_BYTES: Final = 1 << 29
"""Of a block: an index takes as much at least."""
_MOST_BYTES: Final = 1 << 32
"""Of a block. Each is as large as all before it together, as a product with few rows leaves much of a card idle."""
_RESERVE_BYTES: Final = 1 << 30
"""Left free by a block that could be smaller: for searches, and for a model that is loaded beside this one."""


class Blocks:
    """Rows (n, dim), 0 to n - 1, of type `stored`, on `device`."""

    def __init__(self, dim: int, stored: np.dtype[Any], device: str) -> None:
        self.dtype, self.device = (torch.float16 if stored.itemsize == 2 else torch.float32), torch.device(device)
        self._dim, self._stored, self._row_bytes = dim, stored, stored.itemsize * dim
        self._least, self._most = (max(1, size // self._row_bytes) for size in (_LEAST_BYTES, _MOST_BYTES))
        self._blocks: list[Tensor] = []
        self._starts: list[int] = []

    @property
    def heights(self) -> list[int]:
        """Rows that each block has room for."""
        return [len(block) for block in self._blocks]

    @property
    def span(self) -> tuple[int, int]:
        """The fewest and the most rows that `fit` would change nothing for."""
        return (self._starts[-1] + 1 if self._starts else 0), self._capacity

    def fit(self, rows: int) -> None:
        """Takes memory for so many rows, and lets go of blocks that they do not need.

        Raises:
            DeviceProblem: the device has none.
        """
        while self._starts and self._starts[-1] >= rows:
            del self._blocks[-1], self._starts[-1]
        while self._capacity < rows:
            self._grow()

    def set(self, row: int, vectors: Stored) -> None:
        """Writes rows (n, dim) from `row` on, which lies one behind the last at most.

        Raises:
            DeviceProblem: the device has no memory for them.
        """
        self.fit(max(row + len(vectors), self._capacity))
        while len(vectors):
            block, place = self._where(row)
            part = self._blocks[block][place : place + len(vectors)]
            part.copy_(torch.from_numpy(vectors[: len(part)].astype(self._stored)))
            row, vectors = row + len(part), vectors[len(part) :]

    def move(self, hole: int, last: int) -> None:
        """Fills `hole` with the row `last`, which is the end from now on."""
        block, place = self._where(last)
        if hole != last:
            other, there = self._where(hole)
            self._blocks[other][there] = self._blocks[block][place]

    def parts(self, rows: Rows | int, height: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Dense matrices of up to `height` rows that together hold `rows` (all below a number), with their numbers.

        They are views where rows lie side by side; elsewhere they are gathered, no more than a small block has.
        """
        for start, block in zip(self._starts, self._blocks, strict=True):
            end = start + len(block)
            here = range(start, min(rows, end)) if isinstance(rows, int) else _between(rows, start, end)
            step = height if _is_dense(here) else min(height, self._least)
            for low in range(0, len(here), step):
                yield self._dense(block, start, here[low : low + step])

    def gathered(self, rows: Rows) -> Tensor:
        """The rows with these numbers (n,), ascending, some of them several times: (n, dim)."""
        numbers, cuts = self.here(rows), np.searchsorted(rows, [*self._starts, self._capacity])
        parts = zip(self._blocks, self._starts, cuts[:-1], cuts[1:], strict=True)
        return torch.cat(
            [block.index_select(0, numbers[low:high] - start) for block, start, low, high in parts if low < high]
        )

    def here(self, array: npt.NDArray[Any]) -> Tensor:
        """On the device."""
        return torch.from_numpy(array).to(self.device)

    @property
    def _capacity(self) -> int:
        return self._starts[-1] + len(self._blocks[-1]) if self._blocks else 0

    def _where(self, row: int) -> tuple[int, int]:
        """Its block, and its place there."""
        block = bisect_right(self._starts, row) - 1
        return block, row - self._starts[block]

    def _dense(self, block: Tensor, start: int, rows: Sequence[int] | Rows) -> tuple[Tensor, Tensor]:
        """Of the block that begins with row `start`."""
        if _is_dense(rows):
            first, end = int(rows[0]), int(rows[-1]) + 1
            return block[first - start : end - start], torch.arange(first, end, device=self.device)
        numbers = self.here(np.asarray(rows))
        return block.index_select(0, numbers - start), numbers

    def _grow(self) -> None:
        capacity = self._capacity
        self._blocks.append(self._new_block(min(max(capacity, self._least), self._most)))
        self._starts.append(capacity)

    def _new_block(self, height: int) -> Tensor:
        """Of `height` rows, or fewer where that would leave the device little memory."""
        if height > self._least and height * self._row_bytes + _RESERVE_BYTES > free_bytes(self.device):
            return self._new_block(max(height // 2, self._least))
        try:
            return torch.empty(height, self._dim, dtype=self.dtype, device=self.device)
        except torch.OutOfMemoryError as error:
            raise DeviceProblem(
                f"the GPU has no memory for {height:,} more rows of an index: set RANKONE_DEVICE=cpu, or make the "
                f"index compact ({error})"
            ) from error


def free_bytes(device: torch.device) -> float:
    """Of a GPU; the processor's memory is nobody's to count here."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")


def _is_dense(rows: Sequence[int] | Rows) -> bool:
    """They lie side by side."""
    return len(rows) == 0 or int(rows[-1]) - int(rows[0]) + 1 == len(rows)


def _between(rows: Rows, start: int, end: int) -> Rows:
    low, high = np.searchsorted(rows, (start, end))
    return rows[low:high]


_SCRATCH_BYTES: Final = 1 << 28
"""For the products of all queries with as many rows as that allows, and as much again to add them up."""
_LEAST: Final = 128
"""Found at least: cheaper than a second pass over everything, where `bound` leaves a doubt."""
_PAIRS: Final = 4096
"""Products that are held at once, of so many vectors."""


class GpuMatrix:
    """Rows (n, dim), 0 to n - 1, of type `stored`. On the device "cpu" all is the same but how two matrices are multiplied."""

    def __init__(self, dim: int, stored: np.dtype[Any], device: str = "cuda") -> None:
        self._blocks = Blocks(dim, stored, device)
        self._rounding = rounding(dim, self._blocks.dtype)
        use_full_precision()

    @property
    def span(self) -> tuple[int, int]:
        """The fewest and the most rows that `fit` would change nothing for."""
        return self._blocks.span

    def fit(self, rows: int) -> None:
        """Takes memory for so many rows, and lets go of blocks that they do not need.

        Raises:
            DeviceProblem: the device has none.
        """
        self._blocks.fit(rows)

    def set(self, row: int, vectors: Stored) -> None:
        """Writes rows (n, dim) from `row` on, which lies one behind the last at most.

        Raises:
            DeviceProblem: the device has no memory for them.
        """
        self._blocks.set(row, vectors)

    def move(self, hole: int, last: int) -> None:
        """Fills `hole` with the row `last`, which is the end from now on."""
        self._blocks.move(hole, last)

    def nearest(self, queries: Vectors, k: int, rows: Rows | int) -> tuple[Vectors, Rows]:
        """Inner products and rows of at least k nearest among `rows` (all below a number), best first, within `bound`.

        Raises:
            DeviceProblem: the device has no memory for it.
        """
        with _room_to_search():
            asked, k = self._blocks.here(queries).to(self._blocks.dtype), max(k, _LEAST)
            scores = torch.empty(len(asked), 0, device=asked.device)
            numbers = torch.empty(len(asked), 0, dtype=torch.int64, device=asked.device)
            for part, there in self._blocks.parts(rows, max(1, _SCRATCH_BYTES // (4 * len(asked)))):
                found, places = products(asked, part).topk(min(k, len(part)))
                scores, numbers = torch.cat([scores, found], 1), torch.cat([numbers, there[places]], 1)
                scores, order = scores.topk(min(k, scores.shape[1]))
                numbers = numbers.gather(1, order)
            return scores.cpu().numpy(), numbers.cpu().numpy()

    def scores(self, queries: Vectors, rows: Rows) -> Vectors:
        """The inner product of every query (m, dim) with its rows (m, k), always added up in the same order.

        Raises:
            DeviceProblem: the device has no memory for it.
        """
        with _room_to_search():
            flat, asked = rows.ravel(), self._blocks.here(queries)
            order = np.argsort(flat, kind="stable")
            scores = np.empty(len(flat), np.float32)
            for pairs in (order[start : start + _PAIRS] for start in range(0, len(order), _PAIRS)):
                asking = asked[self._blocks.here(pairs // rows.shape[1])]
                scores[pairs] = row_sums(asking * self._blocks.gathered(flat[pairs])).cpu().numpy()
            return scores.reshape(rows.shape)

    def bound(self, last: float) -> float:
        """What no row that `nearest` left out can exceed, if `last` is the lowest score that it found."""
        return last + self._rounding


@contextmanager
def _room_to_search() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceProblem(
            f"the GPU has no memory left for a search: ask for less at once, set RANKONE_DEVICE=cpu, or make the index "
            f"compact ({error})"
        ) from error
