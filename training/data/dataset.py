"""What a data set is: named classes, and files with labels for training, validation and testing."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from rankone.model.errors import RankoneError
from rankone.model.folders import name_of
from rankone.model.preprocessing import ImageLimits

OWN_IMAGES: Final = ImageLimits(max_bytes=1 << 30, max_pixels=1 << 30, max_side=1 << 16)
"""For the user's own files: refuses only what cannot be a photograph."""


class DataError(RankoneError, ValueError):
    """A data set that cannot be used; the message says what is missing and where."""


@dataclass(frozen=True)
class Split:
    """`labels[i]` is the class of `paths[i]`; the lowest `banner` rows of pixels of every file are cut off first."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    banner: int = 0

    def __len__(self) -> int:
        return len(self.paths)

    def at(self, indices: Iterable[int]) -> Split:
        """The images with these indices, in that order."""
        chosen = list(indices)
        return replace(self, paths=tuple(self.paths[i] for i in chosen), labels=tuple(self.labels[i] for i in chosen))

    def spaced(self, count: int) -> Split:
        """At most `count` images from all over the split, which is ordered by classes or not at all."""
        return self.at(evenly_spaced(len(self), count))

    def __add__(self, other: Split) -> Split:
        assert self.banner == other.banner
        return replace(self, paths=self.paths + other.paths, labels=self.labels + other.labels)

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 of the files' bytes, labels and order, wherever the files are; raises DataError if one cannot be read."""
        digest = hashlib.sha256(f"{self.banner}".encode())
        for path, label in zip(self.paths, self.labels, strict=True):
            digest.update(f"{label} {sha256_of(path)}\n".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class DataSet:
    """Named classes, images to train on and images to measure with; some have a validation split of their own."""

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    validation: Split | None = None
    protocol: str = "train/ and test/ folders"
    """Which of its published splits this is."""
    left_out: tuple[str, ...] = field(default=(), compare=False)
    """What its folders hold beside images, a line for every ending and reason."""

    @property
    def splits(self) -> dict[str, Split]:
        """By name, without those that are None."""
        found = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in found.items() if split is not None}


def limited(split: Split, count: int) -> Split:
    """The first `count` images of every class; raises DataError if `count` is not positive."""
    if count < 1:
        raise DataError(f"at least one image of every class is needed, not {count}")
    return split.at(sorted(index for indices in by_label(split.labels).values() for index in indices[:count]))


def by_label(labels: Sequence[int]) -> dict[int, list[int]]:
    """The indices of each label."""
    found: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        found[label].append(index)
    return found


def evenly_spaced(total: int, count: int) -> list[int]:
    """`count` of `total` indices, or all if there are fewer, evenly spaced from the first to the last."""
    return [round(i) for i in np.linspace(0, total - 1, min(count, total))]


def sha256_of(path: Path) -> str:
    """Of the file's bytes, in hex; raises DataError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{name_of(path)} cannot be read: {error.strerror}") from error
