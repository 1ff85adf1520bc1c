"""Any folder of images: `train/<class>/*` and `test/<class>/*`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model.errors import RankoneError

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp"})


class DataError(RankoneError, ValueError):
    """A data set that cannot be used; the message says what is missing and where."""


@dataclass(frozen=True)
class Split:
    """Images and their classes: `labels[i]` is the class of `paths[i]`."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class DataSet:
    """Named classes, images to train on and images to measure with."""

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split


def load_folder(root: Path) -> DataSet:
    """The data set in `root`; classes are the folders of `train/`, in alphabetical order.

    Raises:
        DataError: `train/` or `test/` is missing or empty, or `test/` has a class that `train/` lacks.
    """
    classes = tuple(_class_folders(root / "train"))
    if strangers := set(_class_folders(root / "test")) - set(classes):
        raise DataError(f"{root / 'test'} has classes that train/ lacks: {', '.join(sorted(strangers))}")
    return DataSet(
        name=root.name,
        classes=classes,
        train=_split(root / "train", classes),
        test=_split(root / "test", classes),
    )


def images_in(folder: Path) -> list[Path]:
    """The JPEG, PNG and WebP files under `folder`, at any depth, in a stable order."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def limited(split: Split, count: int) -> Split:
    """The first `count` images of every class.

    Raises:
        DataError: `count` is not positive.
    """
    if count < 1:
        raise DataError(f"at least one image of every class is needed, not {count}")
    seen: Counter[int] = Counter()
    kept: list[int] = []
    for index, label in enumerate(split.labels):
        seen[label] += 1
        if seen[label] <= count:
            kept.append(index)
    return Split(tuple(split.paths[i] for i in kept), tuple(split.labels[i] for i in kept))


def _class_folders(split: Path) -> list[str]:
    if not split.is_dir():
        raise DataError(f"{split} is missing; a data set is a folder with train/<class>/ and test/<class>/")
    names = sorted(entry.name for entry in split.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise DataError(f"{split} has no class folders")
    return names


def _split(root: Path, classes: tuple[str, ...]) -> Split:
    found = [(path, label) for label, name in enumerate(classes) for path in images_in(root / name)]
    if not found:
        raise DataError(f"{root} has no JPEG, PNG or WebP images in its class folders")
    paths, labels = zip(*found, strict=True)
    return Split(paths, labels)
