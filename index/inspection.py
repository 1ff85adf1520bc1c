"""Looks at a folder of indexes without changing it, also beside a running service."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rankone.index.database import LOCK, SUFFIX, wal_files
from rankone.index.errors import IndexProblem
from rankone.index.reader import Reader
from rankone.index.spec import Spec

LARGEST_CHECKED: Final = 1 << 28
"""Bytes. Every page of a file up to this size is checked, in about a second."""


@dataclass(frozen=True)
class Inspected:
    """An index as its file shows it. `fault` says why it cannot be read, `left` why it was not."""

    name: str
    spec: Spec | None = None
    count: int = 0
    is_checked: bool = False
    """Whether every page of the file was checked."""
    fault: str | None = None
    left: str | None = None


def inspect(folder: Path) -> Iterator[Inspected]:
    """Every index of a folder. Nothing in it is written, not even the log that SQLite makes for whoever reads.

    An index that no process has open is read as a file that cannot change. The log of a killed process is left to the next
    start, which writes it into the file.
    """
    is_used = user_of(folder) is not None
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        log, _ = wal_files(path)
        if not is_used and log.exists() and log.stat().st_size:
            left = (
                f"its log holds {log.stat().st_size:,} bytes, which the next start of the service writes into the file"
            )
            yield Inspected(path.stem, left=left)
            continue
        try:
            yield _read(path, is_used=is_used)
        except IndexProblem as problem:
            yield Inspected(path.stem, fault=str(problem))


def user_of(folder: Path) -> int | None:
    """The process that has the folder of indexes open, by the locks that Linux lists; None if none is known."""
    try:
        lock = (folder / LOCK).stat()
        listed = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    wanted = f"{os.major(lock.st_dev):02x}:{os.minor(lock.st_dev):02x}:{lock.st_ino}"
    held = [line.split() for line in listed if "->" not in line]  # an arrow marks one that waits
    return next((int(words[4]) for words in held if words[1] == "FLOCK" and words[5] == wanted), None)


def _read(path: Path, *, is_used: bool) -> Inspected:
    with closing(Reader(path, is_immutable=not is_used)) as reader, reader.snapshot() as about:
        small = path.stat().st_size <= LARGEST_CHECKED
        if small:
            reader.check()
        return Inspected(path.stem, about.spec, reader.count(), is_checked=small)
