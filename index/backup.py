"""Files of indexes without a service: looked at, read, verified, backed up and restored.

Reading works beside a running service, and sees its last commit. Whatever writes into a folder of indexes needs it for itself.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rankone.index.backend import AnyReader
from rankone.index.database import LOCK, PARTIAL, SUFFIX, companions, locked, publish, wal_files
from rankone.index.errors import IndexConflict, IndexDamaged, IndexProblem, UnknownIndex
from rankone.index.items import Record
from rankone.index.loss import ignores_log
from rankone.index.reader import Reader
from rankone.index.spec import Spec

Tell = Callable[[int], None]
"""Is called with the number of items that were done since the last call."""
LARGEST_CHECKED: Final = 1 << 28
"""Bytes. Every page of a file up to this size is checked, in about a second."""
TellPages = Callable[[int, int], None]
"""Is called with the number of pages that are left, and of pages in all."""


def file_of(folder: Path, name: str) -> Path:
    """The file of an index. Raises UnknownIndex if there is none of that name."""
    path = folder / f"{name}{SUFFIX}"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in folder.glob(f"*{SUFFIX}"))) or "none"
        raise UnknownIndex(f"there is no index {name!r} in {folder}; there are: {known}")
    return path


def require_exists(path: Path) -> Path:
    """The same path. Raises IndexProblem if nothing is there."""
    if not path.exists():
        raise IndexProblem(f"{path} is not there")
    return path


def require_intact(record: Record) -> Record:
    """The same record. Raises IndexDamaged if its checksum is wrong."""
    if not record.is_intact:
        raise IndexDamaged(f"the item {record.id!r} is damaged: add it again, or restore a backup")
    return record


@contextmanager
def reading_file(path: Path) -> Iterator[tuple[Reader, Spec]]:
    """A reader of one state of the index in a file, and the index's spec. Raises IndexProblem if it cannot be read."""
    is_immutable = ignores_log(require_exists(path))
    with closing(Reader(path, is_immutable=is_immutable)) as reader, reader.snapshot() as about:
        yield reader, about.spec


def damaged_among(reader: AnyReader, tell: Tell) -> list[str]:
    """The ids of all items with a wrong checksum.

    Raises:
        IndexDamaged: what holds them is damaged, so that any item may be missing.
    """
    found = []
    reader.check()
    for _, record in reader.everything():
        if not record.is_intact:
            found.append(record.id)
        tell(1)
    return found


def back_up(path: Path, target: Path, tell: TellPages) -> int:
    """Copies one state of an index, even while a service writes to it; returns the number of items.

    The copy is written under another name, every row of it is checked, and it is renamed when it is on disk. The log of an
    earlier file of that name is removed: SQLite would take it for the copy's, and write it into the copy.

    Raises:
        IndexConflict: `target` exists already.
        IndexDamaged: the index or the copy is damaged.
        IndexProblem: the copy cannot be written: there is no such folder, or no room.
    """
    if target.exists():
        raise IndexConflict(f"{target} is there already; name another file")
    partial = target.with_name(f".{target.name}{PARTIAL}")
    with reading_file(path) as (reader, _):
        try:
            partial.unlink(missing_ok=True)
            reader.backup(partial, tell)
            with reading_file(partial) as (copy, _):
                if damaged := damaged_among(copy, lambda _: None):
                    raise IndexDamaged(
                        f"{len(damaged)} items are damaged: {', '.join(damaged[:5])}; nothing was written"
                    )
                count = copy.count()
            for leftover in (*companions(partial), *companions(target)):
                leftover.unlink(missing_ok=True)
            publish(partial, target)
        except (OSError, sqlite3.Error) as error:
            raise IndexProblem(f"{target} cannot be written: {error}") from error
        finally:
            for leftover in (partial, *companions(partial)):
                leftover.unlink(missing_ok=True)
    return count


def restore(backup: Path, path: Path, tell: TellPages) -> int:
    """Makes an index of a backup, in a folder that no service uses; returns the number of items. See `back_up`."""
    with locked(path.parent):
        return back_up(backup, path, tell)


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
