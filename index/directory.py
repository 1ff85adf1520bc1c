"""Which item lies in which row: ids and sequence numbers of rows that are always dense."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
_FIRST: Final = 1024


class Directory:
    """Rows 0 to n - 1; whoever keeps something by row makes the moves that this one tells."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self._row: dict[str, int] = {}
        self._sequences = np.empty(_FIRST, np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._row

    @property
    def sequences(self) -> Rows:
        """The sequence numbers (n,) by row."""
        return self._sequences[: len(self.ids)]

    def place(self, item_id: str, sequence: int) -> int:
        """The row of this item from now on: its own, or a new one behind the last."""
        row = self._row.setdefault(item_id, len(self.ids))
        if row == len(self.ids):
            self.ids.append(item_id)
            if row == len(self._sequences):
                self._sequences = np.concatenate([self._sequences, np.empty_like(self._sequences)])
        self._sequences[row] = sequence
        return row

    def remove(self, item_id: str) -> tuple[int, int] | None:
        """Takes an item out; the last row is to be moved into the hole: (hole, last), equal where it was the last."""
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
        """The rows of these numbers, ascending; numbers that are not here are left out."""
        wanted = np.fromiter(sequences, np.int64)
        return np.flatnonzero(np.isin(self.sequences, wanted))

    def labels(self, by_sequence: Mapping[int, str]) -> dict[int, str]:
        """Labels by sequence number as labels by row."""
        found = ((row, by_sequence.get(sequence)) for row, sequence in enumerate(self.sequences.tolist()))
        return {row: label for row, label in found if label is not None}
