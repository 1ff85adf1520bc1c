"""`rankone data split`: divides a folder of class folders into train/ and test/."""

from __future__ import annotations

import os
import random
import shutil
from collections import defaultdict
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from rankone.training.data.dataset import DataError, sha256_of
from rankone.training.data.folder import class_folders, images_in, staged_folder

Group = tuple[Path, ...]
"""Files with the same bytes."""


@dataclass(frozen=True)
class Division:
    """Which files are for training and which for testing."""

    train: tuple[Path, ...]
    test: tuple[Path, ...]


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
        raise DataError(f"{out} cannot be written: {error}") from error
    return division


def divide(folder: Path, test: float, seed: int) -> Division:
    """Tests with the share `test` of every class, as nearly as possible, with at least one image on each side.

    Files with the same bytes are on the same side; if two classes share them, on the training side: an image with two labels
    measures nothing.

    Raises:
        DataError: a class with fewer than two different images; the message names all of them.
    """
    images = {name: images_in(folder / name) for name in class_folders(folder)}
    drawn = {}
    for name, groups in _own_groups(folder, images).items():
        draw = random.Random(f"{seed}/{name}")  # noqa: S311 - no secret
        num_shared = len(images[name]) - sum(map(len, groups))
        drawn[name] = _drawn(groups, round(len(images[name]) * test), num_shared, draw)
    if faults := [f"{name} ({len(images[name])} files)" for name, groups in drawn.items() if not groups]:
        raise DataError(
            f"each class needs two different images, one to train on, and one to test with that no other class has; "
            f"these have too few: {', '.join(faults)}"
        )
    tested = {path for groups in drawn.values() for group in groups for path in group}
    paths = sorted(chain.from_iterable(images.values()))
    return Division(*(tuple(path for path in paths if (path in tested) is testing) for testing in (False, True)))


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
    target.parent.mkdir(parents=True, exist_ok=True)
    source = source.resolve()  # a link to a link would not survive a move
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def _check(folder: Path, out: Path, test: float) -> None:
    if not 0 < test < 1:
        raise DataError(f"test is a part of every class, between 0 and 1, not {test}")
    if os.path.lexists(out):
        raise DataError(f"{out} exists; give a folder that does not")
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder")
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        raise DataError(f"{folder} has train/ and test/ already: it is a data set as it is")
    if out.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{out} lies in {folder}, where it would become one more class; give a folder beside it")
    if not class_folders(folder):
        raise DataError(f"{folder} has no class folders; a class is a folder with its images")
