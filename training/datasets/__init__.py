"""Data sets by name or path: what to train on and what to measure with, as files on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from training.datasets.folder import DataError, DataSet, Split, load_folder
from training.datasets.photos import write_photos

WRITERS: Final[Mapping[str, Callable[[Path], None]]] = {"photos": write_photos}
"""Data sets that the package can write by itself."""


def load(name_or_path: str, root: Path = Path("data")) -> DataSet:
    """A data set by name, written under `root` first if it is not there yet, or any `train/` `test/` tree of class folders.

    Raises:
        DataError: an unknown name that is no directory either, or a directory that is no data set.
    """
    if name_or_path not in WRITERS:
        if not Path(name_or_path).is_dir():
            raise DataError(f"{name_or_path} is neither a directory nor one of: {', '.join(WRITERS)}")
        return load_folder(Path(name_or_path))
    path = root / name_or_path
    if not path.exists():
        WRITERS[name_or_path](path)
    return load_folder(path)


__all__ = ["WRITERS", "DataError", "DataSet", "Split", "load", "load_folder", "write_photos"]
