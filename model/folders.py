"""Which files of a folder are images: one answer for training, `rankone data` and the commands that ask a service.

Needs no package, because these commands run where only the client is installed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SUFFIXES: Final = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "GIF": (".gif",),
    "HEIC": (".heic", ".heif", ".hif"),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
"""By kind, the endings under which such files are looked for in folders."""

HIDDEN: Final = "hidden"
SYSTEM: Final = "not the user's: a desktop, an archive or a file server keeps it"
UNREAD: Final = "not read, convert it to JPEG or PNG"
OTHER: Final = "not named as images are"
SEEN: Final = "a link to a folder that is looked through already, or that it lies in"
NO_FILE: Final = "not a file"
BROKEN: Final = "a link to nothing"
STRAY: Final = "in no class folder"

_READ: Final = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
_UNREAD: Final = frozenset(
    f".{name}"
    for names in (
        "3fr arw cr2 cr3 crw dng erf iiq kdc mos mrw nef nrw orf pef raf rw2 rwl sr2 srw x3f",  # of cameras
        "ai bpg cur dcm dds djvu eps exr fits hdr icns ico j2k jp2 jxl pcx pdf psb psd qoi svg svgz tga wmf xcf",
    )
    for name in names.split()
)
_SYSTEM: Final = frozenset(
    {
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "@sharebin",
        "@tmp",
        "__macosx",
        "desktop.ini",
        "ehthumbs.db",
        "icon\r",
        "lost+found",
        "system volume information",
        "thumbs.db",
    }
)
"""In lower case."""
_NOT_TEXT: Final = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_MAX_LINES: Final = 20


@dataclass(frozen=True)
class Found:
    """A file or folder that `walk` came to."""

    path: Path
    reason: str = ""
    """Why it is left out; empty for an image."""
    is_lost: bool = False
    """Whether images may be in it, or it may be one, that could not be looked at."""


class LeftOut:
    """Counts what is left out, by ending and reason; `lost` has one by one what could not be looked at."""

    def __init__(self) -> None:
        self.lost: list[Found] = []
        self._groups: dict[tuple[str, str], tuple[int, Path]] = {}

    def add(self, found: Found) -> None:
        """Counts a file or folder that has a reason."""
        if found.is_lost:
            self.lost.append(found)
            return
        key = (_group(found), found.reason)
        count, first = self._groups.get(key, (0, found.path))
        self._groups[key] = (count + 1, first)

    def lines(self) -> list[str]:
        """A line for every ending and reason, with the first path, the most frequent first; then one for each that is lost."""
        ranked = sorted(self._groups.items(), key=lambda group: -group[1][0])
        lines = [_line(*key, *group) for key, group in ranked[:_MAX_LINES]]
        if rest := ranked[_MAX_LINES:]:
            lines.append(f"{sum(count for _, (count, _) in rest):,} more, of {len(rest):,} other endings or reasons")
        return lines + [f"{name_of(found.path)}: {found.reason}" for found in self.lost]


def walk(folder: Path) -> Iterator[Found]:
    """Everything in `folder`, at any depth, in the order of the names: images, and what is left out with the reason.

    Links to folders are followed; no folder is looked through twice. A folder that is left out counts as one. The names
    of one directory after the other are read, when the walk gets there. Nothing is raised: what cannot be read is lost.
    """
    seen = set[tuple[int, int]]()
    for parent in (*Path(os.path.realpath(folder)).parents, *Path(os.path.abspath(folder)).parents):
        with suppress(OSError):
            seen.add(_identity(parent))
    listings = [_listing(folder, seen)]
    while listings:
        entry = next(listings[-1], None)
        if entry is None:
            listings.pop()
        elif isinstance(entry, Found):
            yield entry
        else:
            listings.append(_listing(entry, seen))


def images_in(folder: Path, left_out: LeftOut | None = None) -> list[Path]:
    """The images of `walk`, sorted; `left_out` counts the rest."""
    images = []
    for found in walk(folder):
        if not found.reason:
            images.append(found.path)
        elif left_out is not None:
            left_out.add(found)
    return images


def folders_in(folder: Path, left_out: LeftOut | None = None) -> list[str]:
    """The names of the folders directly in `folder`, in order; `left_out` counts what is passed over, images too.

    Raises:
        OSError: it cannot be read.
    """
    names = []
    for entry in map(_judged, _entries(folder)):
        if isinstance(entry, Path):
            names.append(entry.name)
        elif left_out is not None:
            left_out.add(entry if entry.reason else Found(entry.path, STRAY))
    return names


def name_of(path: Path | str) -> str:
    r"""The path on one line of text that every format can hold.

    Line breaks and other control characters are escaped (`\n`), and bytes that are no UTF-8 become `\udc..`.
    """
    return _NOT_TEXT.sub(lambda found: found.group().encode("unicode_escape", "surrogatepass").decode(), str(path))


def _listing(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Found | Path]:
    """What is in a folder, and the folders in it as their paths; or why it is left out."""
    try:
        identity = _identity(folder)
        if identity in seen:
            yield Found(folder, SEEN)
            return
        entries = _entries(folder)
    except OSError as error:
        yield _unreadable(folder, error)
        return
    seen.add(identity)
    yield from map(_judged, entries)


def _identity(folder: Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _judged(entry: os.DirEntry[str]) -> Found | Path:
    path = Path(entry.path)
    if entry.name.startswith("."):
        return Found(path, HIDDEN)
    if entry.name.lower() in _SYSTEM:
        return Found(path, SYSTEM)
    try:
        return path if entry.is_dir() else _file(entry, path)
    except OSError as error:
        return _unreadable(path, error)


def _file(entry: os.DirEntry[str], path: Path) -> Found:
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix not in _READ:
        return Found(path, UNREAD if suffix in _UNREAD else OTHER)
    if entry.is_file():
        return Found(path)
    return Found(path, BROKEN, is_lost=True) if entry.is_symlink() else Found(path, NO_FILE)


def _unreadable(path: Path, error: OSError) -> Found:
    return Found(path, f"cannot be read: {error.strerror}", is_lost=True)


def _group(found: Found) -> str:
    if found.reason in (HIDDEN, SYSTEM):
        return ""
    return name_of(found.path.suffix.lower())


def _line(suffix: str, reason: str, count: int, first: Path) -> str:
    what = " ".join(part for part in (f"{count:,}", suffix) if part)
    return f"{what}: {reason} ({'the first is ' if count > 1 else ''}{name_of(first)})"
