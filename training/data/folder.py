"""Folders of images: `train/<class>/*` and `test/<class>/*`, read and written."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rankone.model.preprocessing import SUFFIXES
from rankone.training.data.dataset import DataError, DataSet, Split

_READ: Final = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
_NOT_READ: Final = frozenset({".arw", ".cr2", ".cr3", ".dng", ".jp2", ".jxl", ".nef", ".psd", ".svg"})


def load_folder(root: Path) -> DataSet:
    """The data set in `root`; classes are the folders of `train/`, in alphabetical order.

    Raises:
        DataError: `train/` or `test/` is missing, their classes differ, or a class has no images in one of them.
    """
    data = read_folder(root)
    check_folder(root, data)
    return data


def check_folder(root: Path, data: DataSet) -> None:
    """Raises DataError if the classes of `train/` and `test/` differ, or a class has no images in one of them."""
    if faults := list(_faults(root, data)):
        raise DataError("; ".join(faults))


def read_folder(root: Path) -> DataSet:
    """The contents of `train/` and `test/`, even if they differ; raises DataError if one is missing or has no class folders."""
    names: set[str] = set()
    for split in (root / "train", root / "test"):
        if not split.is_dir():
            raise DataError(
                f"{split} is missing; a data set is a folder with train/<class>/ and test/<class>/, "
                f"which `rankone data split` makes of one with <class>/"
            )
        if not (found := class_folders(split)):
            raise DataError(f"{split} has no class folders")
        names |= set(found)
    classes = tuple(sorted(names))
    name = root.name or root.resolve().name
    return DataSet(name, classes, train=_split(root / "train", classes), test=_split(root / "test", classes))


def images_in(folder: Path) -> list[Path]:
    """The files under `folder` that are named as images are, at any depth, sorted; no hidden ones."""
    return sorted(path for path in _visible_files(folder) if path.suffix.lower() in _READ)


def class_folders(root: Path) -> list[str]:
    """Their names, in alphabetical order; no hidden ones."""
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def left_out(root: Path) -> Iterator[str]:
    """A sentence for every file of `train/` and `test/` that looks like an image and is not part of the data set."""
    for split in (root / "train", root / "test"):
        for path in sorted(_visible_files(split)):
            if path.suffix.lower() in _NOT_READ:
                yield f"{path} is left out: files of its kind are not read; convert it to JPEG or PNG"
            elif path.suffix.lower() in _READ and path.parent == split:
                yield f"{path} is left out: it lies in no class folder"


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that is renamed to `out` at the end of the block, or removed if the block fails."""
    out.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield stage
        stage.chmod(0o755)
        stage.rename(out)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _faults(root: Path, data: DataSet) -> Iterator[str]:
    for name, other in (("train", "test"), ("test", "train")):
        filled = {data.classes[label] for label in data.splits[name].labels}
        lacking = [label for label in data.classes if not (root / name / label).is_dir()]
        if lacking:
            yield f"{root / other} has classes that {name}/ lacks: {', '.join(lacking)}"
        if empty := [label for label in data.classes if label not in filled and label not in lacking]:
            yield f"{root / name} has no images of: {', '.join(empty)}"


def _split(root: Path, classes: Sequence[str]) -> Split:
    found = [(path, label) for label, name in enumerate(classes) for path in images_in(root / name)]
    return Split(tuple(path for path, _ in found), tuple(label for _, label in found))


def _visible_files(folder: Path) -> Iterator[Path]:
    """Files that are not hidden: hidden ones are previews, notebook checkpoints or entries of a Mac's archives."""
    for path in folder.rglob("*"):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path
