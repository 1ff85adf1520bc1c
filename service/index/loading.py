"""The rows of an index from its file into memory, each checked on the way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.index.compact import Codes
from service.index.directory import Directory
from service.index.errors import IndexDamaged, IndexProblem
from service.index.matrix import Matrix
from service.index.ranking import Gallery
from service.index.reader import Reader
from service.index.schema import Spec


@dataclass(frozen=True)
class Loaded:
    """What is searched, in the state of `sequence`, without the rows whose checksum is not that of their content."""

    gallery: Gallery
    directory: Directory
    sequence: int
    damaged: frozenset[str]


def load(reader: Reader, spec: Spec, path: Path) -> Loaded:
    """Reads every row.

    Raises:
        IndexDamaged: the file is not whole.
    """
    directory, damaged = Directory(), set[str]()
    gallery: Gallery = Matrix(spec.dim)
    if spec.kind == "compact":
        gallery = Codes(spec.dim, directory, reader.vectors, spec.stored)
    num_bytes = spec.dim * np.dtype(spec.stored).itemsize
    try:
        with reader.snapshot() as sequence:
            for number, record in reader.everything():
                if record.is_whole and len(record.vector) == num_bytes:
                    gallery.set(directory.place(record.id, number), np.frombuffer(record.vector, spec.stored))
                else:
                    damaged.add(record.id)
    except IndexProblem as error:
        raise IndexDamaged(f"{path} is damaged: {error}") from error
    return Loaded(gallery, directory, sequence, frozenset(damaged))
