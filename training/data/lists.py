"""The text files of the benchmarks: one line an image, or one line a class. Errors are DataErrors that name the file."""

from __future__ import annotations

from pathlib import Path

from rankone.training.data.dataset import DataError


def lines(path: Path) -> list[str]:
    """The non-empty lines, stripped, with any line ending."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # an editor may have put a mark before the first line
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text: {error}") from error
    return [line.strip() for line in text.split("\n") if line.strip()]


def pairs(path: Path) -> list[tuple[str, str]]:
    """The part of every line before its first space, and the part after it."""
    found = []
    for number, line in enumerate(lines(path), start=1):
        first, space, rest = line.partition(" ")
        if not space:
            raise DataError(f"{path}, line {number}: expected two columns, got {line!r}")
        found.append((first, rest.strip()))
    return found


def numbered(path: Path) -> dict[str, str]:
    """Number -> value, from lines `number value`."""
    found: dict[str, str] = {}
    for number, value in pairs(path):
        if not number.isdecimal():
            raise DataError(f"{path}: expected a number and a value, got '{number} {value}'")
        if number in found:
            raise DataError(f"{path}: {number} is there twice")
        found[number] = value
    return found


def by_class(path: Path) -> list[tuple[str, str]]:
    """Class and file, from lines `<class>/<file>`; either may hold spaces."""
    found = []
    for number, line in enumerate(lines(path), start=1):
        name, _, file = line.partition("/")
        if not (name and file):
            raise DataError(f"{path}, line {number}: expected <class>/<file>, got {line!r}")
        found.append((name, file))
    return found


def inside(root: Path, marker: str, *folders: str) -> Path:
    """`root`, or the first of these folders within it, that holds `marker`: archives are unpacked one level deeper or not."""
    for folder in ("", *folders):
        if (root / folder / marker).exists():
            return root / folder
    raise DataError(f"{root} has no {marker}, nor has {' or '.join(folders)} in it: is this the unpacked archive?")
