"""Backups: one file, of one state of an index, whole or not there."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from rankone.index.database import PARTIAL, SUFFIX, FolderLock, Spec, place, spec_of, wal_files
from rankone.index.errors import IndexConflict, IndexDamaged, IndexProblem, UnknownIndex
from rankone.index.items import Reader, Record

Tell = Callable[[int], None]
"""Is told how many items are done."""


def file_of(folder: Path, name: str) -> Path:
    """The file of an index.

    Raises:
        UnknownIndex: there is none.
    """
    path = folder / f"{name}{SUFFIX}"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in folder.glob(f"*{SUFFIX}"))) or "none"
        raise UnknownIndex(f"there is no index {name!r} in {folder}; there are: {known}")
    return path


def there(path: Path) -> Path:
    """The same path.

    Raises:
        IndexProblem: nothing is there.
    """
    if not path.exists():
        raise IndexProblem(f"{path} is not there")
    return path


def whole(record: Record) -> Record:
    """The same record.

    Raises:
        IndexDamaged: it is damaged.
    """
    if not record.is_whole:
        raise IndexDamaged(f"the item {record.id!r} is damaged on disk: add it again, or restore a backup")
    return record


@contextmanager
def reading(path: Path) -> Iterator[tuple[Reader, Spec]]:
    """A reader of one state of the file, whether or not a service writes to it.

    Raises:
        IndexDamaged: it is no index, or not whole.
    """
    with closing(Reader(path)) as reader, reader.snapshot():
        yield reader, spec_of(reader.about(), path)


def damaged_rows(path: Path, tell: Tell) -> list[str]:
    """The ids of all items whose checksum is not that of their content.

    Raises:
        IndexDamaged: the file is not whole; the ids that could be read say nothing of the rest.
    """
    with reading(path) as (reader, _):
        reader.check_file()
        found = []
        for _, record in reader.everything():
            if not record.is_whole:
                found.append(record.id)
            tell(1)
        return found


Pages = Callable[[int, int], None]


def back_up(path: Path, target: Path, tell: Pages) -> int:
    """Copies an index, also one that a service is writing to, by SQLite's online backup; returns how many items that are.

    The copy is written under another name, every row of it checked, and renamed when it is on disk. The log of a file that had
    that name before is removed: SQLite would take it for the copy's own, and write it into that.

    Raises:
        IndexConflict: `target` is there already.
        IndexDamaged: the index or the copy is.
        IndexProblem: the copy cannot be written, as there is no such folder, or no room.
    """
    if target.exists():
        raise IndexConflict(f"{target} is there already; name another file")
    with reading(path) as (reader, _):
        return _copied(lambda partial: reader.backup(partial, tell), target)


def restore(backup: Path, path: Path, tell: Pages) -> int:
    """Makes an index of a backup, in a folder that no service uses; returns how many items it holds. See `back_up`."""
    lock = FolderLock(path.parent)
    try:
        return back_up(backup, path, tell)
    finally:
        lock.release()


def _copied(copy: Callable[[Path], None], target: Path) -> int:
    partial = target.with_name(f".{target.name}{PARTIAL}")
    try:
        partial.unlink(missing_ok=True)
        copy(partial)
        if damaged := damaged_rows(partial, lambda _: None):
            raise IndexDamaged(f"{len(damaged)} items are damaged: {', '.join(damaged[:5])}; nothing was written")
        with reading(partial) as (reader, _):
            count = reader.count()
        for leftover in (*wal_files(partial), *wal_files(target)):
            leftover.unlink(missing_ok=True)
        place(partial, target)
    except (OSError, sqlite3.Error) as error:
        raise IndexProblem(f"{target} cannot be written: {error}") from error
    finally:
        for leftover in (partial, *wal_files(partial)):
            leftover.unlink(missing_ok=True)
    return count
