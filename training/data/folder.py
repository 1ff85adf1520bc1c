"""Any folder of images: `train/<class>/*` and `test/<class>/*`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final
from rankone.training.data.dataset import DataError, DataSet, Split


SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp"})
_OTHER_SUFFIXES: Final = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".ppm", ".tif", ".tiff"}
)
_SPLITS: Final = ("train", "test")


def load_folder(root: Path) -> DataSet:
    """The data set in `root`; classes are the folders of `train/`, in alphabetical order.

    Raises:
        DataError: `train/` or `test/` is missing, they have other classes, or a class has no images in one of them.
    """
    data = read_folder(root)
    if faults := list(_faults(root, data)):
        raise DataError("; ".join(faults))
    return data


def read_folder(root: Path) -> DataSet:
    """What `train/` and `test/` hold, be it a data set that can be used or not; classes are the folders of either.

    Raises:
        DataError: one of them is missing, or has no class folders.
    """
    names = sorted({name for split in _SPLITS for name in _required_class_folders(root / split)})
    return DataSet(
        name=root.name or root.resolve().name,
        classes=tuple(names),
        train=_split(root / "train", names),
        test=_split(root / "test", names),
    )


def images_in(folder: Path) -> list[Path]:
    """The JPEG, PNG and WebP files under `folder`, at any depth, in a stable order; nothing hidden."""
    return sorted(path for path in _visible(folder) if path.suffix.lower() in SUFFIXES)


def class_folders(root: Path) -> list[str]:
    """Their names, in alphabetical order; nothing hidden."""
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def left_out(root: Path) -> list[str]:
    """A sentence for every file of `train/` and `test/` that looks like an image and is none of the data set's."""
    return [f"{path} is left out: {reason}" for split in _SPLITS for path, reason in _left_out(root / split)]


def _faults(root: Path, data: DataSet) -> Iterator[str]:
    for name, other in (_SPLITS, _SPLITS[::-1]):
        filled = {data.classes[label] for label in data.splits[name].labels}
        lacking = [label for label in data.classes if not (root / name / label).is_dir()]
        if lacking:
            yield f"{root / other} has classes that {name}/ lacks: {', '.join(lacking)}"
        if empty := [label for label in data.classes if label not in filled and label not in lacking]:
            yield f"{root / name} has no JPEG, PNG or WebP images of: {', '.join(empty)}"


def _required_class_folders(split: Path) -> list[str]:
    if not split.is_dir():
        raise DataError(
            f"{split} is missing; a data set is a folder with train/<class>/ and test/<class>/, "
            f"which `rankone data split` makes of one with <class>/"
        )
    names = class_folders(split)
    if not names:
        raise DataError(f"{split} has no class folders")
    return names


def _split(root: Path, classes: list[str]) -> Split:
    found = [(path, label) for label, name in enumerate(classes) for path in images_in(root / name)]
    return Split(tuple(path for path, _ in found), tuple(label for _, label in found))


def _left_out(split: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(_visible(split)):
        suffix = path.suffix.lower()
        if suffix in _OTHER_SUFFIXES:
            yield path, f"only files that end in {', '.join(sorted(SUFFIXES))} are read"
        elif suffix in SUFFIXES and path.parent == split:
            yield path, "it lies in no class folder"


def _visible(folder: Path) -> Iterator[Path]:
    """Files. Hidden ones are not the user's: previews, checkpoints of notebooks, what archives of a Mac carry along."""
    for path in folder.rglob("*"):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path
