"""The rows of an index from its file into memory, each checked on the way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.index.compact import Codes
from service.index.device import check_device
from service.index.directory import Directory
from service.index.errors import DeviceProblem, IndexDamaged, IndexProblem
from service.index.matrix import Matrix
from service.index.ranking import Gallery
from service.index.reader import Reader
from service.index.schema import Device, Spec


@dataclass(frozen=True)
class Loaded:
    """What is searched, in the state of `sequence`, without the rows whose checksum is not that of their content."""

    gallery: Gallery
    directory: Directory
    sequence: int
    damaged: frozenset[str]


def load(reader: Reader, spec: Spec, path: Path, device: Device = "cpu") -> Loaded:
    """Reads every row, after a look at every page: where the file's own order is lost, rows are missing and nobody is told.

    Raises:
        IndexDamaged: the file is not whole.
        DeviceProblem: the device cannot be had, or cannot hold the rows.
    """
    directory, damaged = Directory(), set[str]()
    gallery = _gallery(reader, spec, directory, device)
    num_bytes, num_rows, number = spec.dim * np.dtype(spec.stored).itemsize, 0, 0
    try:
        with reader.snapshot() as sequence:
            reader.check_file()
            for number, record in reader.everything():
                num_rows += 1
                if record.is_whole and len(record.vector) == num_bytes:
                    gallery.set(directory.place(record.id, number), np.frombuffer(record.vector, spec.stored))
                else:
                    damaged.add(str(record.id))
            if num_rows != reader.count() or number > sequence:
                raise IndexDamaged(f"{path} is damaged: its items are not those it counts; restore it from a backup")
    except (IndexDamaged, DeviceProblem):
        raise
    except IndexProblem as error:
        raise IndexDamaged(f"{path} is damaged: {error}") from error
    return Loaded(gallery, directory, sequence, frozenset(damaged))


def _gallery(reader: Reader, spec: Spec, directory: Directory, device: Device) -> Gallery:
    if spec.kind == "compact":
        return Codes(spec.dim, directory, reader.vectors, spec.stored)
    if device == "cpu":
        return Matrix(spec.dim)
    check_device(device)
    from service.index.gpu import GpuMatrix  # torch, which a service on the CPU does without

    return GpuMatrix(spec.dim, spec.stored)
