"""The start of an index: every row is read from disk, checked and written into memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Event, Thread
from typing import Final

import faiss
import numpy as np

from rankone.index import faults
from rankone.index.errors import IndexDamaged, IndexProblem
from rankone.index.gallery import Gallery, RowTable
from rankone.index.items import Row
from rankone.index.reader import Reader
from rankone.index.spec import Spec

_TILE: Final = 64
"""Rows that are read at once. Memory for many more is given back and faulted in again each time, which takes as long."""
_AHEAD: Final = 4
"""Tiles that are read before they are written."""
_PIECE: Final = 1 << 20

Checked = tuple[Row, bool]


def load(reader: Reader, spec: Spec, gallery: Gallery, table: RowTable, num_threads: int) -> tuple[int, set[str]]:
    """Reads every row into memory but those with a wrong checksum; returns the sequence number and the ids left out.

    Every page is checked first: in a damaged tree, rows can be missing without an error.

    Raises:
        IndexDamaged: the file is damaged.
        DeviceProblem: the device cannot hold the rows.
    """
    damaged, num_rows, number = set[str](), 0, 0
    num_threads_before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(num_threads)  # holds for the calling thread alone
    try:
        with reader.snapshot() as about, closing(_tiles(reader.everything(), spec)) as tiles:
            reader.check()
            for tile in tiles:
                num_rows, number, start = num_rows + len(tile), tile[-1][0][0], len(table)
                intact = [row for row, is_intact in tile if is_intact]
                damaged.update(str(record.id) for (_, record), is_intact in tile if not is_intact)
                for sequence, record in intact:
                    table.add(record.id, sequence)
                assert len(table) == start + len(intact)  # ids are unique in a file whose pages are in order
                vectors = np.frombuffer(b"".join(record.vector for _, record in intact), spec.stored)
                gallery.write(start, vectors.reshape(-1, spec.dim))
            if num_rows != reader.count() or number > about.sequence:
                raise IndexDamaged(f"{reader.path}: its items are not those it counts; restore it from a backup")
    except IndexProblem as error:
        if type(error) is not IndexProblem:  # the disk, the device, or damage that is named
            raise
        raise IndexDamaged(f"{reader.path} is damaged: {error}") from error
    finally:
        faiss.omp_set_num_threads(num_threads_before)
    return about.sequence, damaged


def _tiles(rows: Iterator[Row], spec: Spec) -> Generator[list[Checked]]:
    """All rows, read and checked by another thread, ahead of their use."""
    checked = partial(_checked, rows, spec.dim * spec.stored.itemsize)
    with ThreadPoolExecutor(1, "rankone-load") as thread:
        waiting = deque(thread.submit(checked) for _ in range(_AHEAD))
        while tile := waiting.popleft().result():
            waiting.append(thread.submit(checked))
            yield tile


def _checked(rows: Iterator[Row], size: int) -> list[Checked]:
    """The next rows, each with whether it is as it was stored, with a vector of so many bytes."""
    return [((n, record), record.is_intact and len(record.vector) == size) for n, record in islice(rows, _TILE)]


class ReadAhead:
    """A thread that reads a file from front to back, until `stop`.

    SQLite checks one page after the other in the order of its trees. From a disk that takes ten times as long.

    The file stays open until `close`, which must come after SQLite has closed it: closing any descriptor of a file ends all
    locks that the process has on it (fcntl(2)), and another program could then take the index for unused, and remove its log.

    Raises:
        IndexUnavailable: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        with faults.told(path):
            self._file = path.open("rb", buffering=0)
        self._is_over = Event()
        self._thread = Thread(target=self._read, name="rankone-read-ahead", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._is_over.set()
        self._thread.join()

    def close(self) -> None:
        """Closes the file."""
        self.stop()
        self._file.close()

    def _read(self) -> None:
        piece = bytearray(_PIECE)
        with suppress(OSError):  # what SQLite cannot read, it tells
            while not self._is_over.is_set() and self._file.readinto(piece):
                pass
