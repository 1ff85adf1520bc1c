"""Connections to the file of an index: one that writes and checkpoints, and others that only read.

SQLite's WAL-reset bug before 3.51.3 takes two connections that write or checkpoint, so there is never a second one: the
folder's lock keeps other processes away, and a reader is opened read-only. Whatever makes a commit durable is read back.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

from rankone.index.errors import IndexDamaged, IndexProblem
from rankone.index.interest import GivenUp
from rankone.model.errors import RankoneError

DURABLE: Final[dict[str, str | int]] = {
    "page_size": 4096,
    "journal_mode": "wal",
    "synchronous": 2,  # FULL: the write-ahead log is synced at every commit
    "wal_autocheckpoint": 0,  # its errors would be swallowed; the writer checkpoints itself
    "journal_size_limit": 1 << 26,
    "cell_size_check": 1,
    "trusted_schema": 0,
}
_READING: Final[dict[str, str | int]] = {"query_only": 1, "wal_autocheckpoint": 0, "trusted_schema": 0}
_TIMEOUT_S: Final = 5.0
_CHUNK_BYTES: Final = 1 << 20


def open_writer(path: Path) -> sqlite3.Connection:
    """The connection that writes, to a file that is there and that no other process has open.

    Raises:
        IndexDamaged: it is no database, or not whole.
        IndexProblem: it cannot be opened, or SQLite does not take a setting.
    """
    _renew_log(path)
    return _open(path, "rw", DURABLE)


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that only reads; for the errors see `open_writer`."""
    return _open(path, "ro", _READING)


def create(path: Path, script: str) -> None:
    """A new file with what `script` makes, closed again.

    Raises:
        IndexProblem: it cannot be made.
    """
    path.touch()
    with closing(open_writer(path)) as connection:
        connection.executescript(script)


def _renew_log(path: Path) -> None:
    """Writes the log that a killed process left behind once more, and waits for the disk.

    Where a sync has failed, Linux takes the pages for written: they are read back from memory, and no later sync writes them.
    What is recovered from such a log, and all that is committed behind it, would go with the power.
    """
    try:
        with path.with_name(f"{path.name}-wal").open("r+b", buffering=0) as log:
            while data := log.read(_CHUNK_BYTES):
                log.seek(-len(data), os.SEEK_CUR)
                log.write(data)
            os.fsync(log.fileno())
    except FileNotFoundError:
        return
    except OSError as error:
        raise IndexProblem(f"the log of {path} cannot be written: {error}") from error


def _open(path: Path, mode: str, settings: dict[str, str | int]) -> sqlite3.Connection:
    try:
        uri = f"file:{quote(str(path.absolute()))}?mode={mode}"
        connection = sqlite3.connect(uri, _TIMEOUT_S, uri=True, check_same_thread=False, isolation_level=None)
    except sqlite3.Error as error:
        raise IndexProblem(f"{path} cannot be opened: {error}") from error
    connection.text_factory = _text
    try:
        _set(connection, settings, path)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise as_problem(error, path) from error
    except IndexProblem:
        connection.close()
        raise
    return connection


def _set(connection: sqlite3.Connection, settings: dict[str, str | int], path: Path) -> None:
    for name, value in settings.items():
        connection.execute(f"PRAGMA {name} = {value}").fetchall()
        (found,) = connection.execute(f"PRAGMA {name}").fetchone()
        if found != value:
            raise IndexProblem(
                f"{path}: SQLite runs with {name} = {found} and not {value}: a commit would not be durable"
            )


def _text(data: bytes) -> str:
    """Also what is damaged, so that its checksum can say whose it is."""
    return data.decode(errors="replace")


def as_problem(error: sqlite3.DatabaseError, path: Path) -> RankoneError:
    """What SQLite says of a file, as an error of ours: an IndexProblem, or GivenUp where it was told to end."""
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_INTERRUPT:
        return GivenUp(f"nobody waits any more for what was being read from {path}")
    if code == sqlite3.SQLITE_BUSY:
        return IndexProblem(f"{path} cannot be used as an index: another process is using it")
    if code is not None and code & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return IndexDamaged(f"{path} cannot be used as an index: {error}; restore it from a backup")
    return IndexProblem(f"{path} cannot be used as an index: {error}")
