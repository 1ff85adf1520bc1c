"""Backups: one file, of one state of an index, whole or not there."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from rankone.index.errors import IndexConflict, IndexDamaged, IndexProblem
from rankone.index.lock import FolderLock
from rankone.index.offline import damaged_rows, reading
from rankone.index.schema import PARTIAL, place, wal_files

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
