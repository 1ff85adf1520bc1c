"""One process at a time: a lock on the folder of the indexes, which the system lets go of when the process dies."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

import numpy as np

from rankone.index.errors import IndexConflict, IndexDamaged, IndexProblem
from rankone.model.errors import RankoneError
from rankone.model.files import make_folder, sync

IsOver = Callable[[], bool]


class GivenUp(RankoneError):
    """Nobody waits any more for what was being read; the file is as good as before."""


_IS_OVER: Final[ContextVar[IsOver | None]] = ContextVar("is_over", default=None)


@contextmanager
def read_until(is_over: IsOver) -> Iterator[None]:
    """Within, what this thread reads through borrowed readers ends with GivenUp once `is_over` returns True.

    It is called from this thread, every few milliseconds.
    """
    token = _IS_OVER.set(is_over)
    try:
        yield
    finally:
        _IS_OVER.reset(token)


def interest() -> IsOver | None:
    """What tells that nobody waits any more for what this thread reads, if something does."""
    return _IS_OVER.get()


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


SCHEMA: Final = 2
TABLES: Final = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE items (
    sequence INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    metadata TEXT NOT NULL,
    sha256 TEXT,
    fingerprint TEXT NOT NULL,
    checksum BLOB NOT NULL
);
CREATE TABLE vectors (sequence INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE TABLE thumbnails (sequence INTEGER PRIMARY KEY, thumbnail BLOB NOT NULL);
"""
SUFFIX: Final = ".sqlite"
PARTIAL: Final = ".partial"
"""Ends the name of a file that is being written or dropped; one that is found at a start is removed."""
_NUMBERS: Final[dict[str, type]] = {"schema": int, "sequence": int, "dim": int, "recall": float}
Kind = Literal["exact", "compact"]
Dtype = Literal["float16", "float32"]
Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Spec:
    """What an index is: the model whose embeddings (dim,) it holds, how they are kept and how they are searched."""

    fingerprint: str
    dim: int
    dtype: Dtype = "float16"
    kind: Kind = "exact"
    thumbnails: bool = False

    @property
    def stored(self) -> np.dtype[Any]:
        """The type of a vector on disk."""
        return np.dtype("<f2" if self.dtype == "float16" else "<f4")

    def check_serves(self, fingerprint: str) -> None:
        """Raises IndexConflict where another model is being served."""
        if self.fingerprint != fingerprint:
            raise IndexConflict(
                f"the index was made with the bundle {self.fingerprint[:16]}, and {fingerprint[:16]} is being served: "
                "their embeddings cannot be compared. Serve that bundle, or index the images again elsewhere"
            )


def make(path: Path, spec: Spec) -> None:
    """Makes the file of an empty index, whole and on disk when this returns.

    Raises:
        IndexProblem: it cannot be written.
    """
    partial = path.with_name(f".{path.name}{PARTIAL}")
    for leftover in (partial, *wal_files(partial), *wal_files(path)):
        leftover.unlink(missing_ok=True)
    try:
        create(partial, TABLES)
        with closing(sqlite3.connect(partial)) as connection, connection:
            write_about(connection, {"schema": SCHEMA, "sequence": 0, **asdict(spec)})
        place(partial, path)
    except (OSError, sqlite3.Error) as error:
        raise IndexProblem(f"{path} cannot be made: {error}") from error


def place(partial: Path, path: Path) -> None:
    """Gives a finished file its name, so that it is on disk under it."""
    sync(partial)
    os.replace(partial, path)
    sync(path.parent)


def wal_files(path: Path) -> tuple[Path, Path]:
    """What SQLite keeps beside an open file."""
    return path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def write_about(connection: sqlite3.Connection, values: dict[str, Any]) -> None:
    """Sets values of the table `about`."""
    pairs = [(key, str(value)) for key, value in values.items()]
    connection.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", pairs)


def read_about(connection: sqlite3.Connection, path: Path) -> dict[str, str]:
    """The table `about`, with numbers where numbers are kept.

    Raises:
        IndexDamaged: the file is none of ours, or not whole.
    """
    try:
        rows = connection.execute("SELECT key, value FROM about").fetchall()
    except (sqlite3.DatabaseError, ValueError) as error:  # also a UnicodeDecodeError, of a damaged name of a column
        raise _damaged(path, error) from error
    return about_of(rows, path)


def about_of(rows: Iterable[tuple[str, str]], path: Path) -> dict[str, str]:
    """The table `about` of its rows; for the errors see `read_about`."""
    about = dict(rows)
    try:
        for key in _NUMBERS.keys() & about.keys():
            _NUMBERS[key](about[key])
    except (ValueError, TypeError) as error:
        raise _damaged(path, error) from error
    return about


def _damaged(path: Path, error: Exception) -> IndexDamaged:
    return IndexDamaged(f"{path} cannot be used as an index: {error}; restore it from a backup")


def spec_of(about: dict[str, str], path: Path) -> Spec:
    """The spec in the table `about`.

    Raises:
        IndexProblem: the file has another schema.
    """
    needed = {"sequence", *(field.name for field in fields(Spec))}
    if about.get("schema") != str(SCHEMA) or not needed <= about.keys():
        raise IndexProblem(f"{path} has another schema than this version of rankone reads: {about}")
    dtype: Dtype = "float32" if about["dtype"] == "float32" else "float16"
    kind: Kind = "compact" if about["kind"] == "compact" else "exact"
    return Spec(about["fingerprint"], int(about["dim"]), dtype, kind, about["thumbnails"] == "True")


NAME: Final = ".lock"


class FolderLock:
    """Held from construction to `release`.

    Raises:
        IndexProblem: another process holds it, or the folder cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        try:
            make_folder(folder)
            self._file = (folder / NAME).open("a")
        except OSError as error:
            raise IndexProblem(f"{folder} cannot be opened: {error}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise IndexProblem(f"the indexes in {folder} cannot be opened: another process is using it") from error

    def release(self) -> None:
        """Lets others in."""
        self._file.close()
