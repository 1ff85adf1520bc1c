"""The exact gallery on a GPU: rows in blocks that stay there, in the type they have on disk, all compared with every query.

Matrices of one type are multiplied, so float16 rows are ranked by queries rounded to float16, with sums in float32. `bound`
covers that rounding; `scores` are of the queries as they came. Only the search thread comes here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from service.index.directory import Rows
from service.index.errors import DeviceProblem
from service.index.sums import products, rounding, row_sums
from service.index.vectors import Stored, Vectors

_LEAST_BYTES: Final = 1 << 29
"""Of a block: an index takes as much at least."""
_MOST_BYTES: Final = 1 << 32
"""Of a block. Each is as large as all before it together, as a product with few rows leaves much of a card idle."""
_SCRATCH_BYTES: Final = 1 << 28
"""For the products of all queries with as many rows as that allows."""
_LEAST: Final = 128
"""Found at least: cheaper than a second pass over everything, where `bound` leaves a doubt."""
_PAIRS: Final = 4096
"""Products that are held at once, of so many vectors."""


class GpuMatrix:
    """Rows (n, dim), 0 to n - 1, of type `stored`. On the device "cpu" all is the same but how two matrices are multiplied."""

    def __init__(self, dim: int, stored: np.dtype[Any], device: str = "cuda") -> None:
        self._dim, self._stored, self._device = dim, stored, torch.device(device)
        self._dtype = torch.float16 if stored.itemsize == 2 else torch.float32
        self._least, self._most = (max(1, size // (stored.itemsize * dim)) for size in (_LEAST_BYTES, _MOST_BYTES))
        self._blocks: list[Tensor] = []
        self._starts: list[int] = []
        self._rounding = rounding(dim, self._dtype)

    def set(self, row: int, vectors: Stored) -> None:
        """Writes rows (n, dim) from `row` on, which lies one behind the last at most.

        Raises:
            DeviceProblem: the device has no memory for another block.
        """
        while len(vectors):
            if row == self._capacity:
                self._grow()
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
        if place == 0:
            del self._blocks[block:], self._starts[block:]

    def nearest(self, queries: Vectors, k: int, rows: Rows | int) -> tuple[Vectors, Rows]:
        """Inner products and rows of at least k nearest among `rows` (all below a number), best first, within `bound`."""
        asked, k = self._here(queries).to(self._dtype), max(k, _LEAST)
        scores = torch.empty(len(asked), 0, device=self._device)
        numbers = torch.empty(len(asked), 0, dtype=torch.int64, device=self._device)
        for part, there in self._parts(rows, max(1, _SCRATCH_BYTES // (4 * len(asked)))):
            found, places = products(asked, part).topk(min(k, len(part)))
            scores, numbers = torch.cat([scores, found], 1), torch.cat([numbers, there[places]], 1)
            scores, order = scores.topk(min(k, scores.shape[1]))
            numbers = numbers.gather(1, order)
        return scores.cpu().numpy(), numbers.cpu().numpy()

    def scores(self, queries: Vectors, rows: Rows) -> Vectors:
        """The inner product of every query (m, dim) with its rows (m, k), always added up in the same order."""
        flat, asked = rows.ravel(), self._here(queries)
        order = np.argsort(flat, kind="stable")
        scores = np.empty(len(flat), np.float32)
        for pairs in (order[start : start + _PAIRS] for start in range(0, len(order), _PAIRS)):
            multiplied = asked[self._here(pairs // rows.shape[1])] * self._gathered(flat[pairs])
            scores[pairs] = row_sums(multiplied).cpu().numpy()
        return scores.reshape(rows.shape)

    def bound(self, last: float) -> float:
        """What no row that `nearest` left out can exceed, if `last` is the lowest score that it found."""
        return last + self._rounding

    @property
    def _capacity(self) -> int:
        return self._starts[-1] + len(self._blocks[-1]) if self._blocks else 0

    def _where(self, row: int) -> tuple[int, int]:
        """Its block, and its place there."""
        block = bisect_right(self._starts, row) - 1
        return block, row - self._starts[block]

    def _parts(self, rows: Rows | int, height: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Dense matrices of up to `height` rows that together hold `rows`, with their numbers."""
        for start, block in zip(self._starts, self._blocks, strict=True):
            if isinstance(rows, int):
                here: Sequence[int] | Rows = range(start, min(rows, start + len(block)))
            else:
                here, height = _between(rows, start, start + len(block)), min(height, self._least)
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
        numbers, cuts = self._here(rows), np.searchsorted(rows, [*self._starts, self._capacity])
        parts = zip(self._blocks, self._starts, cuts[:-1], cuts[1:], strict=True)
        return torch.cat(
            [block.index_select(0, numbers[low:high] - start) for block, start, low, high in parts if low < high]
        )

    def _here(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _grow(self) -> None:
        capacity = self._capacity
        self._blocks.append(self._new_block(min(max(capacity, self._least), self._most)))
        self._starts.append(capacity)

    def _new_block(self, height: int) -> Tensor:
        """Of `height` rows, or fewer where the device has no memory for so many."""
        try:
            return torch.empty(height, self._dim, dtype=self._dtype, device=self._device)
        except torch.OutOfMemoryError as error:
            if height > self._least:
                return self._new_block(max(height // 2, self._least))
            raise DeviceProblem(
                f"the GPU has no memory for {height:,} more rows of an index: set RANKONE_DEVICE=cpu, or make the "
                f"index compact ({error})"
            ) from error


def _between(rows: Rows, start: int, end: int) -> Rows:
    low, high = np.searchsorted(rows, (start, end))
    return rows[low:high]
