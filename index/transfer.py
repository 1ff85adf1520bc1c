"""Items of an index to files and back: a .npy array with JSON Lines beside it, or Parquet. Item by item, whatever the size.

Thumbnails stay behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np

from rankone.index import npy, parquet
from rankone.index.backup import Tell, reading
from rankone.index.database import FolderLock, Spec, make
from rankone.index.errors import IndexConflict, IndexProblem
from rankone.index.index import Index
from rankone.index.items import Item

_FORMS: Final[dict[str, ModuleType]] = {".npy": npy, ".parquet": parquet}
_BATCH: Final = 512
_NORM_TOLERANCE: Final = 1e-2


def export(path: Path, out: Path, tell: Tell) -> int:
    """Writes all items of one state of the index; returns how many. `out` is a .npy or .parquet file that is not there.

    One that was broken off goes on where it stopped if it was a .npy file and of the very same items.

    Raises:
        IndexConflict: `out` is there already.
        IndexProblem: another kind of file; no pyarrow.
        IndexDamaged: an item is.
    """
    if out.exists():
        raise IndexConflict(f"{out} is there already; name another file")
    with reading(path) as (reader, spec):
        _form(out).write(reader, spec, out, tell)
        return reader.count()


def load_items(source: Path, path: Path, spec: Spec | None, tell: Tell) -> int:
    """Adds the items of an exported file to the index at `path`, made if it is not there; returns how many were new.

    Items that are there with the same content are passed over, so one that was broken off goes on. Needs the folder for itself.
    `spec` says whose embeddings these are where the file does not.

    Raises:
        IndexConflict: the index is of another model.
        IndexProblem: a file that cannot be read, or holds what is no embedding; the folder is in use.
    """
    found = _form(source).spec_of(source) or spec
    if found is None:
        raise IndexProblem(f"{source} does not say which model made it: name the bundle")
    lock = FolderLock(path.parent)
    try:
        if not path.exists():
            make(path, found)
        index = Index(path)
        try:
            index.spec.check_serves(found.fingerprint)
            return _add(index, source, tell)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise IndexProblem(f"{source} cannot be read: {error}") from error
        finally:
            index.close()
    finally:
        lock.release()


def _add(index: Index, source: Path, tell: Tell) -> int:
    added = 0
    items = _form(source).read(source)
    while batch := list(islice(items, _BATCH)):
        _check(batch, index.spec.dim, source)
        new = [item for item in batch if not index.holds(item)]
        if new:
            index.put(new)
        added += len(new)
        tell(len(batch))
    return added


def _check(items: Sequence[Item], dim: int, source: Path) -> None:
    for item in items:
        vector = np.asarray(item.vector, np.float64)
        norm = float(np.linalg.norm(vector))
        if vector.shape != (dim,) or not np.isfinite(norm) or (norm and abs(norm - 1) > _NORM_TOLERANCE):
            raise IndexProblem(f"{source}: the vector of {item.id!r} is no embedding of {dim} numbers and length 1")


def _form(path: Path) -> ModuleType:
    if path.suffix not in _FORMS:
        raise IndexProblem(f"{path}: items are written to and read from .npy or .parquet files")
    return _FORMS[path.suffix]
