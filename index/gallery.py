"""Rows in memory: which item lies in which row, and what a gallery of rows can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, Protocol

import faiss
import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Stored = npt.NDArray[np.floating]
"""float16 or float32, as the index keeps vectors."""
Rows = npt.NDArray[np.int64]
"""Row numbers, ascending."""
_INITIAL_CAPACITY: Final = 1024


class Candidates(NamedTuple):
    """What a gallery found for a query: rows (n,) and scores (n,), in no order. No other row scores more than `bound`."""

    rows: Rows
    scores: Vectors
    bound: float


class Gallery(Protocol):
    """Vectors by row, 0 to n - 1. Only the search thread calls it, but for `stable_row_counts`."""

    @property
    def stable_row_counts(self) -> tuple[int, int]:
        """The smallest and the largest number of rows for which `fit` would change nothing."""

    def fit(self, num_rows: int) -> None:
        """Allocates memory for that many rows, and frees the rest. Raises DeviceProblem or MemoryError if it is short."""

    def write(self, row: int, vectors: Stored) -> None:
        """Writes vectors (n, dim) from `row` on, at most the number of rows; for the errors see `fit`."""

    def move(self, hole: int, last: int) -> None:
        """Moves the last row into `hole`, and forgets the last row."""

    def nearest(self, queries: Vectors, k: int, rows: Rows) -> list[Candidates]:
        """At least k nearest of these rows, or all, for every query (m, dim). Raises DeviceProblem if memory is short."""


class RowTable:
    """The ids and sequence numbers of the items in rows 0 to n - 1."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self._row: dict[str, int] = {}
        self._sequences = np.empty(_INITIAL_CAPACITY, np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._row

    @property
    def sequences(self) -> Rows:
        """The sequence numbers (n,) by row."""
        return self._sequences[: len(self.ids)]

    @property
    def all_rows(self) -> Rows:
        """The row numbers (n,)."""
        return np.arange(len(self.ids))

    def add(self, item_id: str, sequence: int) -> int:
        """Sets the item's sequence number; returns its row, a new one behind the last if the item is new."""
        row = self._row.setdefault(item_id, len(self.ids))
        if row == len(self.ids):
            self.ids.append(item_id)
            if row == len(self._sequences):
                self._sequences = np.concatenate([self._sequences, np.empty_like(self._sequences)])
        self._sequences[row] = sequence
        return row

    def remove(self, item_id: str) -> tuple[int, int] | None:
        """Removes an item; the caller must move the last row into its row: (hole, last). None if there is no such item."""
        hole = self._row.pop(item_id, None)
        if hole is None:
            return None
        last_id = self.ids.pop()
        last = len(self.ids)
        if hole != last:
            self.ids[hole], self._row[last_id] = last_id, hole
            self._sequences[hole] = self._sequences[last]
        return hole, last

    def rows_of(self, sequences: Iterable[int]) -> Rows:
        """The rows of these sequence numbers; numbers that are not in the table are left out."""
        return np.flatnonzero(np.isin(self.sequences, np.fromiter(sequences, np.int64)))

    def labels(self, by_sequence: Mapping[int, str]) -> dict[int, str]:
        """Labels by sequence number as labels by row."""
        return {row: by_sequence[n] for row, n in enumerate(self.sequences.tolist()) if n in by_sequence}


def is_dense(rows: Rows) -> bool:
    """Whether the rows lie side by side."""
    return len(rows) == 0 or int(rows[-1]) - int(rows[0]) + 1 == len(rows)


def floats(vectors: Stored) -> Vectors:
    """Vectors (n, dim) in float32. faiss converts float16 three times as fast as NumPy, by several threads."""
    if vectors.dtype != np.float16:
        return vectors.astype(np.float32, copy=False)
    made = np.empty(vectors.shape, np.float32)
    halves = faiss.IndexScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16)
    halves.sa_decode(np.ascontiguousarray(vectors).view(np.uint8), made)
    return made
