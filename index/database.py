"""The SQLite file of an index: its tables, its durable settings, and connections that write or read.

SQLite's WAL-reset bug before 3.51.3 needs two connections that write or checkpoint. There is only ever one: the lock on the
folder keeps other processes out, and readers open the file read-only.
"""

from __future__ import annotations

import fcntl
import glob
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final, cast, get_args
from urllib.parse import quote

from rankone.index import faults
from rankone.index.cancellation import should_stop
from rankone.index.errors import IndexDamaged, IndexProblem
from rankone.index.spec import About, Dtype, Kind, Spec
from rankone.model.errors import RankoneError
from rankone.model.files import make_folder, sync

SCHEMA: Final = 2
SUFFIX: Final = ".sqlite"
LOCK: Final = ".lock"
"""File in a folder of indexes that the process which has them open keeps locked."""
PARTIAL: Final = ".partial"
"""Ends the name of a file that is being written or dropped. `Indexes` removes such files when it starts."""
DURABLE: Final[dict[str, str | int]] = {
    "page_size": 4096,
    "journal_mode": "wal",
    "synchronous": 2,  # FULL: the write-ahead log is synced at every commit
    "wal_autocheckpoint": 0,  # SQLite would swallow its errors; the writer checkpoints itself
    "journal_size_limit": 1 << 24,
    "cell_size_check": 1,
    "trusted_schema": 0,
}
BUSY_MS: Final = 5000
"""How long SQLite waits for another connection."""
_READING: Final[dict[str, str | int]] = {
    "query_only": 1,
    "wal_autocheckpoint": 0,
    "trusted_schema": 0,
    "cache_size": -1000,  # KB: what is read stays in the processor's cache, so vectors are read 20 % faster than with 2,000
}
# Vectors and thumbnails have tables of their own, so that a filter or a listing reads rows of a few hundred bytes, not 20 KB.
_TABLES: Final = """
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
_OPERATIONS: Final = 100_000
"""SQLite's virtual machine runs so many operations, some milliseconds, between two checks for cancellation."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a folder of indexes. The system releases the lock of a process that dies.

    Raises:
        IndexProblem: another process holds the lock, or the folder cannot be made or written.
    """
    with faults.told(folder):
        make_folder(folder)
        file = (folder / LOCK).open("a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise IndexProblem(f"the indexes in {folder} cannot be opened: another process is using it") from error
        yield


def create_file(path: Path, spec: Spec) -> None:
    """Makes the file of an empty index, on disk when this returns. Raises IndexProblem if it cannot be written."""
    partial = path.with_name(f".{path.name}{PARTIAL}")
    try:
        with faults.told(path):
            for leftover in (partial, *companions(partial), *companions(path)):
                leftover.unlink(missing_ok=True)
            partial.touch()
            with closing(open_writer(partial)) as connection:
                connection.executescript(f"BEGIN; {_TABLES}")
                write_about(connection, schema=SCHEMA, sequence=0, **asdict(spec))
                connection.execute("COMMIT")
            publish(partial, path)
    finally:
        for leftover in (partial, *companions(partial)):
            with suppress(OSError):
                leftover.unlink(missing_ok=True)


def publish(partial: Path, path: Path) -> None:
    """Renames a finished file so that it is on disk under its final name when this returns."""
    sync(partial)
    os.replace(partial, path)
    sync(path.parent)


def publish_bytes(path: Path, data: bytes) -> None:
    """Writes a small file whole and synced to disk, or leaves the previous one. Raises OSError."""
    partial = path.with_name(f".{path.name}{PARTIAL}")
    try:
        partial.write_bytes(data)
        publish(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def wal_files(path: Path) -> tuple[Path, Path]:
    """The write-ahead log and its index, which SQLite keeps beside an open file."""
    return path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def companions(path: Path) -> list[Path]:
    """The files that SQLite and we keep beside the file of an index; they mean nothing to another one of that name."""
    return [map_file(path), *path.parent.glob(f"{glob.escape(path.name)}-*")]


def map_file(path: Path) -> Path:
    """The map of an index, beside it; see `rankone.index.map`."""
    return path.with_suffix(".map.json")


def write_about(connection: sqlite3.Connection, **values: object) -> None:
    """Sets values of the table `about`."""
    pairs = [(key, str(value)) for key, value in values.items()]
    connection.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", pairs)


def read_about(connection: sqlite3.Connection, path: Path) -> About:
    """The table `about`.

    Raises:
        IndexDamaged: the file is not an index, or is damaged.
        IndexProblem: another version of rankone wrote the file.
        Cancelled: see `cancellable`.
    """
    try:
        about: dict[str, str] = dict(connection.execute("SELECT key, value FROM about").fetchall())
        if (schema := int(about["schema"])) != SCHEMA:
            raise IndexProblem(
                f"{path} has schema {schema}, and this version of rankone reads schema {SCHEMA} only: use the version that "
                "wrote it, or index the images again"
            )
        for key, known in (("kind", get_args(Kind)), ("dtype", get_args(Dtype))):
            if (value := about[key]) not in known:
                raise IndexProblem(
                    f"{path} has {key} {value!r}, and this version of rankone knows only {' and '.join(known)}: use the "
                    "version that wrote it, or restore it from a backup"
                )
        dtype, kind = cast("Dtype", about["dtype"]), cast("Kind", about["kind"])
        spec = Spec(about["fingerprint"], int(about["dim"]), dtype, kind, about["thumbnails"] == "True")
        return About(spec, int(about["sequence"]), float(about["recall"]) if "recall" in about else None)
    except sqlite3.DatabaseError as error:
        raise faults.of_sqlite(error, path) from error
    except (ValueError, TypeError, KeyError) as error:  # UnicodeDecodeError too, from a damaged column name
        raise IndexDamaged(f"{path}: its table 'about' is damaged ({error!r}); restore it from a backup") from error


def open_writer(path: Path) -> sqlite3.Connection:
    """The one connection that writes, to a file that exists and that no other process has open.

    Raises:
        IndexDamaged: the file is not a database, or is damaged.
        IndexProblem: it cannot be opened, or SQLite does not accept a setting.
    """
    return _open(path, "rw", DURABLE)


def open_reader(path: Path, *, is_immutable: bool = False) -> sqlite3.Connection:
    """A connection that only reads, and whose reads are `cancellable`; for the errors see `open_writer`.

    With `is_immutable`, for a file that no process has open, SQLite makes no log beside it.
    """
    connection = _open(path, "ro&immutable=1" if is_immutable else "ro", _READING)
    connection.set_progress_handler(should_stop, _OPERATIONS)
    return connection


@contextmanager
def closed_on_error(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Closes the connection if the block fails, and raises an error of SQLite or the system as `faults` has it."""
    try:
        with faults.told(path):
            yield
    except RankoneError:
        connection.close()
        raise


def _open(path: Path, mode: str, settings: dict[str, str | int]) -> sqlite3.Connection:
    with faults.told(path):
        uri = f"file:{quote(str(path.absolute()))}?mode={mode}"
        connection = sqlite3.connect(
            uri, timeout=BUSY_MS / 1000, uri=True, check_same_thread=False, isolation_level=None
        )
    connection.text_factory = partial(
        str, encoding="utf-8", errors="replace"
    )  # its checksum can then name a damaged item
    with closed_on_error(connection, path):
        for name, value in settings.items():
            connection.execute(f"PRAGMA {name} = {value}").fetchall()
            (found,) = connection.execute(f"PRAGMA {name}").fetchone()
            if found != value:
                raise IndexProblem(
                    f"{path}: SQLite runs with {name} = {found} and not {value}: commits are not durable"
                )
    return connection
