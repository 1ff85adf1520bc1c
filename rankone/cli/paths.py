"""The images that paths stand for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rankone.model.errors import RankoneError

_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp"})


class InputError(RankoneError, ValueError):
    """Paths that hold no image that can be used, an output file of a kind that is not written, or a filter that is no JSON."""


def find_images(paths: Sequence[Path]) -> Iterator[Path]:
    """The files among `paths`, and the JPEG, PNG and WebP files under the folders among them, in order of their names.

    Of a folder, the names of one directory are in memory at a time, and no more.

    Raises:
        InputError: a path that is not there.
    """
    for path in paths:
        if path.is_dir():
            yield from _under(path)
        elif path.is_file():
            yield path
        else:
            raise InputError(f"{path} is not there")


def count_images(paths: Sequence[Path]) -> int:
    """How many there are.

    Raises:
        InputError: a path that is not there, or no images at all.
    """
    count = sum(1 for _ in find_images(paths))
    if count == 0:
        raise InputError("no images: give JPEG, PNG or WebP files, or folders that hold some")
    return count


def name_of(path: Path) -> str:
    r"""The path as text that every format can hold: bytes of it that are no UTF-8 become `\udc..`."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _under(folder: Path) -> Iterator[Path]:
    for name in sorted(os.listdir(folder)):
        path = folder / name
        if path.is_dir():
            if not path.is_symlink():  # which may lead back up
                yield from _under(path)
        elif path.suffix.lower() in _SUFFIXES and path.is_file():
            yield path
