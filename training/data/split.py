"""`rankone data split`: divides a folder of class folders into train/ and test/."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections import defaultdict
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from rankone.model.folders import LeftOut, folders_in, images_in, name_of
from rankone.training.data.dataset import DataError, sha256_of
from rankone.training.data.folder import SPLITS, staged_folder, why_empty

Group = tuple[Path, ...]
"""Files with the same bytes."""


@dataclass(frozen=True)
class Division:
    """Which files are for training and which for testing; a line for every ending and reason that is left out."""

    train: tuple[Path, ...]
    test: tuple[Path, ...]
    left_out: tuple[str, ...] = ()


def split(folder: Path, out: Path, test: float = 0.2, seed: int = 0) -> Division:
    """Writes the images of `folder`/<class>/ to `out`/train/<class>/ and `out`/test/<class>/, whole or not at all.

    Files are hard links if possible, otherwise copies; nothing in `folder` is changed. `test` is the share of every class to
    test with. The same arguments give the same files.

    Raises:
        DataError: `out` exists, `folder` has no classes, or a class cannot be on both sides; the message names them.
    """
    _check(folder, out, test)
    division = divide(folder, test, seed)
    try:
        with staged_folder(out) as stage:
            for name, paths in (("train", division.train), ("test", division.test)):
                for path in paths:
                    _link_or_copy(path, stage / name / path.relative_to(folder))
    except OSError as error:
        raise DataError(f"{name_of(out)} cannot be written: {_shortened(error)}") from error
    return division


def divide(folder: Path, test: float, seed: int) -> Division:
    """Tests with the share `test` of every class, as nearly as possible, with at least one image on each side.

    Files with the same bytes are on the same side; if two classes share them, on the training side: an image with two labels
    measures nothing.

    Raises:
        DataError: a class with fewer than two different images; the message names all of them.
    """
    left_out = LeftOut()
    images = {name: images_in(folder / name, left_out) for name in folders_in(folder, left_out)}
    drawn = {}
    for name, groups in _own_groups(folder, images).items():
        draw = random.Random(f"{seed}/{name}")  # noqa: S311 - no secret
        num_shared = len(images[name]) - sum(map(len, groups))
        drawn[name] = _drawn(groups, round(len(images[name]) * test), num_shared, draw)
    if faults := [_few(folder / name, len(images[name])) for name, groups in drawn.items() if not groups]:
        raise DataError(
            f"each class needs two different images, one to train on, and one to test with that no other class has; "
            f"these have too few: {', '.join(faults)}"
        )
    tested = {path for groups in drawn.values() for group in groups for path in group}
    paths = sorted(chain.from_iterable(images.values()))
    train, test_images = (tuple(path for path in paths if (path in tested) is testing) for testing in (False, True))
    return Division(train, test_images, tuple(left_out.lines()))


def _few(folder: Path, num_images: int) -> str:
    return f"{name_of(folder.name)} ({f'{num_images} files' if num_images else why_empty(folder)})"


def _own_groups(folder: Path, images: dict[str, list[Path]]) -> dict[str, list[Group]]:
    """By class, the groups of files with the same bytes, without groups that another class shares."""
    by_bytes: dict[str, list[Path]] = defaultdict(list)
    for path in chain.from_iterable(images.values()):
        by_bytes[sha256_of(path)].append(path)
    own: dict[str, list[Group]] = {name: [] for name in images}
    for group in by_bytes.values():
        labels = {path.relative_to(folder).parts[0] for path in group}
        if len(labels) == 1:
            own[labels.pop()].append(tuple(group))
    return own


def _drawn(groups: list[Group], wanted: int, num_trained: int, draw: random.Random) -> list[Group]:
    """Random groups of `wanted` files or slightly fewer, at least one, and not all unless the class has shared images."""
    shuffled = draw.sample(groups, len(groups))
    most = len(shuffled) - (not num_trained)
    taken: list[Group] = []
    for group in shuffled:
        if len(taken) < most and sum(map(len, taken)) + len(group) <= wanted:
            taken.append(group)
    return taken or ([min(shuffled, key=len)] if most > 0 else [])


def _link_or_copy(source: Path, target: Path) -> None:
    _make_folders(target.parent)
    source = source.resolve()  # a link to a link would not survive a move
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def _make_folders(folder: Path) -> None:
    """`mkdir(parents=True)`, which fails on a thousand nested folders."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        one.mkdir()


def _shortened(error: OSError) -> str:
    """Of a path that is too long, not the path."""
    return f"{error.strerror}, within it" if error.errno == errno.ENAMETOOLONG else str(error)


def _check(folder: Path, out: Path, test: float) -> None:
    if not 0 < test < 1:
        raise DataError(f"test is a part of every class, between 0 and 1, not {test}")
    if os.path.lexists(out):
        raise DataError(f"{name_of(out)} exists; give a folder that does not")
    if not os.path.isdir(folder):
        raise DataError(f"{name_of(folder)} is not a folder")
    if not (names := folders_in(folder)):
        raise DataError(f"{name_of(folder)} has no class folders; a class is a folder with its images")
    _check_classes(folder, names)
    if out.resolve().is_relative_to(folder.resolve()):
        raise DataError(
            f"{name_of(out)} lies in {name_of(folder)}, where it would become one more class; give a folder beside it"
        )


def _check_classes(folder: Path, names: list[str]) -> None:
    """Raises DataError if `names` are splits: two of them, or nothing else. A class may be called `train`, a vehicle."""
    splits = [name for name in names if name.lower() in SPLITS]
    if {"train", "test"} <= set(splits):
        raise DataError(f"{name_of(folder)} has train/ and test/ already: it is a data set as it is")
    if len(splits) > 1 or splits == names:
        listed = " and ".join(f"{name}/" for name in splits)
        raise DataError(
            f"{name_of(folder)} has {listed}, which are splits, not classes. To divide one of them, give "
            f"{name_of(folder / splits[0])}; to train on them, add the one that is missing of train/ and test/"
        )
