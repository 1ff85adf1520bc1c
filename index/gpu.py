"""The exact gallery on a GPU: rows that stay there, in the type they have on disk, all compared with every query.

Matrices of one type are multiplied, so float16 rows are ranked by queries rounded to float16, with sums in float32. `bound`
covers that rounding; `scores` are of the queries as they came. Only the search thread comes here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch

from rankone.index.blocks import Blocks
from rankone.index.directory import Rows
from rankone.index.errors import DeviceProblem
from rankone.index.sums import products, rounding, row_sums, use_full_precision
from rankone.index.vectors import Stored, Vectors

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
