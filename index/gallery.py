"""From what a gallery finds to an answer: best first, ties by id, one a group, nobody who was excluded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final, Protocol

import faiss
import numpy as np
import numpy.typing as npt

from rankone.index.database import Device, Spec
from rankone.index.errors import DeviceProblem


def searched_on(spec: Spec, device: Device) -> Device:
    """Where an index is searched in a service on `device`: compact codes lie in the memory of the host."""
    return "cpu" if spec.kind == "compact" else device


def check_device(device: Device) -> None:
    """Raises DeviceProblem where the device cannot be had; the message says what to do."""
    if device == "cpu":
        return
    try:
        import torch  # which a service on the CPU does without
    except ImportError as error:
        raise DeviceProblem(
            f"device 'cuda' was asked for, and indexes are searched there with torch, which is not to be had ({error}): "
            "install it, or set RANKONE_DEVICE=cpu"
        ) from error
    if not torch.cuda.is_available():
        raise DeviceProblem(
            "device 'cuda' was asked for, but torch finds no GPU to search indexes on: check that the NVIDIA driver is "
            "visible here (nvidia-smi), or set RANKONE_DEVICE=cpu"
        )


Vectors = npt.NDArray[np.float32]
Stored = npt.NDArray[np.floating]
"""float16 or float32, as the index keeps them."""


def as_floats(stored: Stored, out: Vectors | None = None) -> Vectors:
    """The same numbers (n, dim) as float32, in `out` where there is one.

    faiss converts with the instruction that processors have for it, each of its threads some rows; NumPy takes 20 us for 10,000
    numbers. It is also the first to touch the memory of `out`, which for gigabytes is most of the work.
    """
    floats = np.empty(stored.shape, np.float32) if out is None else out
    if stored.dtype != np.float16:
        np.copyto(floats, stored, casting="same_kind")
        return floats
    _halves(stored.shape[1]).sa_decode(np.ascontiguousarray(stored).view(np.uint8), floats)
    return floats


def inner_products(query: Vectors, stored: Stored) -> Vectors:
    """Those (n,) of a query (dim,) with rows (n, dim), each added up in the same order whichever rows there are.

    float16 is read as it is: converting it first would take three times as long.
    """
    num_rows, dim = stored.shape
    scores = np.empty(num_rows, np.float32)
    if stored.dtype != np.float16:
        pointers = map(faiss.swig_ptr, (scores, query, np.ascontiguousarray(stored, np.float32)))
        faiss.fvec_inner_products_ny(*pointers, dim, num_rows)  # type: ignore[attr-defined]
    elif num_rows:
        index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        index.add_sa_codes(np.ascontiguousarray(stored).view(np.uint8))
        found, places = index.search(query[None], num_rows)
        scores[places[0]] = found[0]
    return scores


@cache
def _halves(dim: int) -> Any:
    return faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16)


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


class Gallery(Protocol):
    """Vectors by row."""

    @property
    def span(self) -> tuple[int, int]: ...
    def fit(self, rows: int) -> None: ...
    def set(self, row: int, vectors: Stored) -> None: ...
    def move(self, hole: int, last: int) -> None: ...
    def nearest(self, queries: Vectors, k: int, rows: Rows | int) -> tuple[Vectors, Rows]: ...
    def scores(self, queries: Vectors, rows: Rows) -> Vectors: ...
    def bound(self, last: float) -> float: ...
