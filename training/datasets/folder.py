"""Any folder of images: `train/<class>/*` and `test/<class>/*`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from training.datasets.dataset import DataError, DataSet, Split

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp"})


def load_folder(root: Path) -> DataSet:
    """The data set in `root`; classes are the folders of `train/`, in alphabetical order.

    Raises:
        DataError: `train/` or `test/` is missing, they have other classes, or a class has no images in one of them.
    """
    classes, tested = _class_folders(root / "train"), _class_folders(root / "test")
    for split, names, others in (("test", tested, classes), ("train", classes, tested)):
        if strangers := sorted(set(names) - set(others)):
            lacking = "train" if split == "test" else "test"
            raise DataError(f"{root / split} has classes that {lacking}/ lacks: {', '.join(strangers)}")
    return DataSet(
        name=root.name,
        classes=tuple(classes),
        train=_split(root / "train", classes),
        test=_split(root / "test", classes),
    )


def images_in(folder: Path) -> list[Path]:
    """The JPEG, PNG and WebP files under `folder`, at any depth, in a stable order."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _class_folders(split: Path) -> list[str]:
    if not split.is_dir():
        raise DataError(f"{split} is missing; a data set is a folder with train/<class>/ and test/<class>/")
    names = sorted(entry.name for entry in split.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise DataError(f"{split} has no class folders")
    return names


def _split(root: Path, classes: list[str]) -> Split:
    images = [images_in(root / name) for name in classes]
    if empty := [name for name, paths in zip(classes, images, strict=True) if not paths]:
        raise DataError(f"{root} has no JPEG, PNG or WebP images of: {', '.join(empty)}")
    found = [(path, label) for label, paths in enumerate(images) for path in paths]
    return Split(tuple(path for path, _ in found), tuple(label for _, label in found))
