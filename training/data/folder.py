"""Folders of images: `train/<class>/*` and `test/<class>/*`, perhaps with validation images, read and written."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rankone.model.folders import NO_FILE, STRAY, UNREAD, LeftOut, folders_in, images_in, name_of, walk
from rankone.training.data.dataset import DataError, DataSet, Split

VALIDATION: Final = ("val", "valid", "validation")
"""Names of the folder that may lie next to `train/`."""
SPLITS: Final = frozenset({"train", "test", *VALIDATION})


def load_folder(root: Path) -> DataSet:
    """The data set in `root`; classes are the folders of `train/`, in alphabetical order.

    Raises:
        DataError: `train/` or `test/` is missing, the splits' classes differ, or a class has no images in one of them.
    """
    data = read_folder(root)
    check_folder(root, data)
    return data


def check_folder(root: Path, data: DataSet) -> None:
    """Raises DataError if the classes of the splits differ, or a class has no images in one of them, and says why."""
    if faults := list(_faults(root, data)):
        raise DataError("; ".join(faults))


def read_folder(root: Path) -> DataSet:
    """The contents of `train/`, `test/` and, if it is there, `val/`, `valid/` or `validation/`, even if they differ.

    Raises:
        DataError: `train/` or `test/` is missing, one has no class folders, or there are two folders for validation.
    """
    folders, left_out = split_folders(root), LeftOut()
    found = {name: _class_folders(folder, left_out) for name, folder in folders.items()}
    labels = {name: label for label, name in enumerate(sorted({name for names in found.values() for name in names}))}
    splits = {name: _split(folders[name], {raw: labels[raw] for raw in found[name]}, left_out) for name in folders}
    listed = " and ".join([", ".join(f"{folder.name}/" for folder in list(folders.values())[:-1]), "test/"])
    return DataSet(
        name=name_of(root.name or root.resolve().name),
        classes=tuple(map(name_of, labels)),
        train=splits["train"],
        test=splits["test"],
        validation=splits.get("validation"),
        protocol=f"{listed} folders",
        left_out=tuple(left_out.lines()),
    )


def split_folders(root: Path) -> dict[str, Path]:
    """The folders of train, validation (if there is one) and test; raises DataError as `read_folder` does."""
    validation = [root / name for name in VALIDATION if (root / name).is_dir()]
    if len(validation) > 1:
        both = " and ".join(f"{folder.name}/" for folder in validation)
        raise DataError(
            f"{name_of(root)} has {both}: only one folder can hold the validation images; merge or rename them"
        )
    folders = {"train": root / "train", **dict(zip(("validation",), validation, strict=False)), "test": root / "test"}
    for name in ("train", "test"):
        if not folders[name].is_dir():
            raise DataError(
                f"{name_of(folders[name])} is missing; a data set is a folder with train/<class>/ and test/<class>/, "
                f"which `rankone data split` makes of one with <class>/"
            )
    return folders


def empty_classes(root: Path, data: DataSet) -> dict[tuple[str, str], str]:
    """By split and class, why a class that has a folder there has no images."""
    reasons = {}
    for name, folder in split_folders(root).items():
        filled = {data.classes[label] for label in data.splits[name].labels}
        for raw in folders_in(folder):
            if (label := name_of(raw)) not in filled:
                reasons[name, label] = why_empty(folder / raw)
    return reasons


def why_empty(folder: Path) -> str:
    """What a folder without images holds instead."""
    left_out = LeftOut()
    images_in(folder, left_out)
    return "; ".join(left_out.lines()) or "its folder is empty"


def left_out(root: Path) -> Iterator[str]:
    """A sentence for every file of the splits that looks like an image, or could not be looked at, and is left out."""
    for split in split_folders(root).values():
        for found in walk(split):
            if found.is_lost or found.reason in (UNREAD, NO_FILE):
                yield f"{name_of(found.path)} is left out: {found.reason}"
            elif not found.reason and found.path.parent == split:
                yield f"{name_of(found.path)} is left out: it lies {STRAY}"


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that is renamed to `out` at the end of the block, or removed if the block fails."""
    out.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{out.name[:32]}.", dir=out.parent))
    try:
        yield stage
        stage.chmod(0o755)
        stage.rename(out)
    finally:
        with contextlib.suppress(RecursionError):  # of a thousand nested folders, before Python 3.13
            shutil.rmtree(stage, ignore_errors=True)


def _class_folders(split: Path, left_out: LeftOut) -> list[str]:
    if not (found := folders_in(split, left_out)):
        raise DataError(f"{name_of(split)} has no class folders")
    return found


def _split(root: Path, labels: Mapping[str, int], left_out: LeftOut) -> Split:
    found = [(path, label) for name, label in labels.items() for path in images_in(root / name, left_out)]
    return Split(tuple(path for path, _ in found), tuple(label for _, label in found))


def _faults(root: Path, data: DataSet) -> Iterator[str]:
    """Classes of other splits that train or test lacks, and class folders without images."""
    folders, reasons = split_folders(root), empty_classes(root, data)
    found = {name: {name_of(raw) for raw in folders_in(folder)} for name, folder in folders.items()}
    for name, others in (("train", ("validation", "test")), ("validation", ()), ("test", ("train",))):
        for other in others:
            if lacking := sorted(found.get(other, set()) - found[name]):
                yield f"{name_of(folders[other])} has classes that {name}/ lacks: {', '.join(lacking)}"
        if empty := [f"{label} ({why})" for (split, label), why in reasons.items() if split == name]:
            yield f"{name_of(folders[name])} has no images of: {', '.join(empty)}"
