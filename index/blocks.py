"""Rows on a GPU, in blocks that are never moved nor copied; a removed row is filled by the last one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rankone.index.directory import Rows
from rankone.index.errors import DeviceProblem
from rankone.index.vectors import Stored

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
