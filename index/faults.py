"""Turns disk errors into IndexProblem: full, failing, cannot be opened or damaged. Only damage needs a backup."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from rankone.index.errors import Cancelled, IndexDamaged, IndexFull, IndexProblem, IndexUnavailable
from rankone.model.errors import RankoneError

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_OF_DISK: Final = (
    *(sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM),
    *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_AUTH),
)
_FEW_BYTES: Final = 1 << 17
"""With less, SQLite cannot make its files. It reports that as an I/O error, or as a file that cannot be opened."""


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Raises what SQLite or the system reports about the index at `path` as `of_sqlite` and `of_system` have it."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise of_sqlite(error, path) from error
    except OSError as error:
        raise of_system(error, path) from error


def of_sqlite(error: sqlite3.DatabaseError, path: Path) -> RankoneError:
    """An error of SQLite about the index at `path` as an IndexProblem, or as Cancelled if the read was interrupted."""
    code = getattr(error, "sqlite_errorcode", None)
    kind = -1 if code is None else code & 0xFF
    what = f"{error}, {getattr(error, 'sqlite_errorname', code)}"
    if kind == sqlite3.SQLITE_INTERRUPT:
        return Cancelled(f"reading {path} was cancelled")
    if kind in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return IndexDamaged(f"{path} cannot be used as an index: {error}; restore it from a backup")
    if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return IndexUnavailable(f"{path} cannot be used as an index: another process is using it")
    if kind == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE or (kind in _OF_DISK and _has_no_room(path)):
        return _full(path)
    if kind in _OF_DISK:
        return _failing(path, what) if kind == sqlite3.SQLITE_IOERR else _closed(path, what)
    return IndexProblem(f"{path} cannot be used as an index: {error}")


def of_system(error: OSError, path: Path) -> IndexProblem:
    """An error of the system about a file of the index at `path`."""
    if error.errno in _FULL:
        return _full(path)
    what = error.strerror or str(error)
    return _failing(path, what) if error.errno == errno.EIO else _closed(path, what)


def _full(path: Path) -> IndexFull:
    return IndexFull(f"{path} cannot be used: the disk is full. Free some space; nothing of the index is lost")


def _failing(path: Path, what: str) -> IndexUnavailable:
    return IndexUnavailable(f"{path} cannot be used: the disk failed ({what}). Check the disk and its cables")


def _closed(path: Path, what: str) -> IndexUnavailable:
    return IndexUnavailable(
        f"{path} cannot be opened ({what}). Check its permissions, how the disk is mounted, and the limit of open files"
    )


def free_bytes(folder: Path) -> int:
    """What the disk of a folder has room for."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _has_no_room(path: Path) -> bool:
    with suppress(OSError):
        found = os.statvfs(path.parent)
        has_inodes = found.f_favail > 0 or found.f_files == 0  # some file systems do not count them
        return free_bytes(path.parent) < _FEW_BYTES or not has_inodes
    return False
