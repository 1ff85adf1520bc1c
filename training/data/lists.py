"""The text files in which the benchmarks say what they hold: a line an image, or a line a class."""

from __future__ import annotations

from pathlib import Path
from rankone.training.data.dataset import DataError


def lines(path: Path) -> list[str]:
    """The lines that are not empty, without the white space around them, whichever way they end.

    Raises:
        DataError: there is no such file, or it is not text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # an editor may have put a mark before the first line
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text: {error}") from error
    return [line.strip() for line in text.split("\n") if line.strip()]


def pairs(path: Path) -> list[tuple[str, str]]:
    """Of every line what comes before its first space, and all that comes after.

    Raises:
        DataError: no such file, or a line without a space.
    """
    found = []
    for number, line in enumerate(lines(path), start=1):
        first, space, rest = line.partition(" ")
        if not space:
            raise DataError(f"{path}, line {number}: expected two columns, got {line!r}")
        found.append((first, rest.strip()))
    return found


def numbered(path: Path) -> dict[str, str]:
    """Number -> value, of a file whose lines are `number value`.

    Raises:
        DataError: no such file, a line without a number or a value, or a number that is there twice.
    """
    found: dict[str, str] = {}
    for number, value in pairs(path):
        if not number.isdecimal():
            raise DataError(f"{path}: expected a number and a value, got '{number} {value}'")
        if number in found:
            raise DataError(f"{path}: {number} is there twice")
        found[number] = value
    return found


def by_class(path: Path) -> list[tuple[str, str]]:
    """The class and the file of every line, of a file whose lines are `<class>/<file>`; either may hold spaces.

    Raises:
        DataError: no such file, or a line without a class or a file.
    """
    found = []
    for number, line in enumerate(lines(path), start=1):
        name, _, file = line.partition("/")
        if not (name and file):
            raise DataError(f"{path}, line {number}: expected <class>/<file>, got {line!r}")
        found.append((name, file))
    return found


def index_of(name: str, classes: dict[str, int], source: Path) -> int:
    """The index of a class that a list names.

    Raises:
        DataError: a class that is not there; the message names it and the list.
    """
    if name not in classes:
        raise DataError(f"{source}: there is no class {name!r}")
    return classes[name]


def inside(root: Path, marker: str, *folders: str) -> Path:
    """`root`, or the folder of these within it that holds `marker`: archives are unpacked one level deeper or not.

    Raises:
        DataError: none holds it.
    """
    for folder in ("", *folders):
        if (root / folder / marker).exists():
            return root / folder
    raise DataError(f"{root} has no {marker}, nor has {' or '.join(folders)} in it: is this the unpacked archive?")
