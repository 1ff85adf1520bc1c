"""What is in the file of an index: its tables, and what was decided when it was made.

Vectors and thumbnails lie in tables of their own: a filter or a listing reads rows of a few hundred bytes, not of 20 KB.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from rankone.index.connection import create
from rankone.index.errors import IndexConflict, IndexDamaged, IndexProblem
from rankone.model.files import sync

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
