"""The rows of an index from its file into memory, each checked on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress, islice
from pathlib import Path
from typing import Final

import faiss
import numpy as np

from rankone.index.compact import Codes
from rankone.index.device import check_device
from rankone.index.directory import Directory
from rankone.index.errors import DeviceProblem, IndexDamaged, IndexProblem
from rankone.index.items import Record
from rankone.index.matrix import Matrix
from rankone.index.ranking import Gallery
from rankone.index.reader import Reader, Row
from rankone.index.schema import Device, Spec

_TILE: Final = 256
"""Rows at a time."""


@dataclass(frozen=True)
class Loaded:
    """What is searched, in the state of `sequence`, without the rows whose checksum is not that of their content."""

    gallery: Gallery
    directory: Directory
    sequence: int
    damaged: frozenset[str]


def load(reader: Reader, spec: Spec, path: Path, threads: int, device: Device = "cpu") -> Loaded:
    """Reads every row, after a look at every page: where the file's own order is lost, rows are missing and nobody is told.

    `threads` of the processor convert vectors.

    Raises:
        IndexDamaged: the file is not whole.
        DeviceProblem: the device cannot be had, or cannot hold the rows.
    """
    directory, damaged = Directory(), set[str]()
    gallery = _gallery(reader, spec, directory, device)
    num_rows, number = 0, 0
    try:
        with reader.snapshot() as sequence, _threads(threads):
            reader.check_file()
            for rows in _tiles(reader.everything()):
                num_rows, number = num_rows + len(rows), rows[-1][0]
                is_whole = [_is_whole(record, spec) for _, record in rows]
                _place(list(compress(rows, is_whole)), spec, gallery, directory)
                damaged |= {str(record.id) for (_, record), whole in zip(rows, is_whole, strict=True) if not whole}
            if num_rows != reader.count() or number > sequence:
                raise IndexDamaged(f"{path} is damaged: its items are not those it counts; restore it from a backup")
    except (IndexDamaged, DeviceProblem):
        raise
    except IndexProblem as error:
        raise IndexDamaged(f"{path} is damaged: {error}") from error
    return Loaded(gallery, directory, sequence, frozenset(damaged))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Faiss uses so many; it is set for the calling thread alone."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _tiles(rows: Iterator[Row]) -> Iterator[list[Row]]:
    return iter(lambda: list(islice(rows, _TILE)), [])


def _is_whole(record: Record, spec: Spec) -> bool:
    return record.is_whole and len(record.vector) == spec.dim * spec.stored.itemsize


def _place(rows: Sequence[Row], spec: Spec, gallery: Gallery, directory: Directory) -> None:
    start = len(directory)
    for number, record in rows:
        directory.place(record.id, number)
    assert len(directory) == start + len(rows)  # no id is there twice: every page has been looked at
    vectors = np.frombuffer(b"".join(record.vector for _, record in rows), spec.stored)
    gallery.set(start, vectors.reshape(len(rows), spec.dim))


def _gallery(reader: Reader, spec: Spec, directory: Directory, device: Device) -> Gallery:
    if spec.kind == "compact":
        return Codes(spec.dim, directory, reader.vectors, spec.stored)
    if device == "cpu":
        return Matrix(spec.dim)
    check_device(device)
    from rankone.index.gpu import GpuMatrix  # torch, which a service on the CPU does without

    return GpuMatrix(spec.dim, spec.stored)
