"""Items on disk: one SQLite file an index. What is committed is on the disk; nothing else is ever acknowledged.

One connection writes, reads and checkpoints, guarded by its owner: SQLite's WAL-reset bug before 3.51.3 takes two.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from service.index.errors import IndexConflict, IndexFull, IndexProblem

SCHEMA: Final = 1
VECTOR_TYPE: Final = np.dtype("<f2")

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS items (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    vector BLOB NOT NULL,
    metadata TEXT NOT NULL
);
"""
_CHUNK: Final = 500


@dataclass(frozen=True)
class Item:
    """One image of the index: its id, its embedding (dim,) and what its owner wrote to it."""

    id: str
    vector: npt.NDArray[np.floating] = field(repr=False)
    metadata: dict[str, Any] = field(default_factory=dict)


class Store:
    """The SQLite file of an index made with the bundle `fingerprint`, vectors (dim,) kept in float16.

    Raises:
        IndexConflict: the file was made with another bundle.
        IndexProblem: the file is no index or in use, or SQLite did not take the settings that make a commit durable.
    """

    def __init__(self, path: Path, fingerprint: str, dim: int) -> None:
        self._dim = dim
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=1, check_same_thread=False, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise IndexProblem(f"{path} cannot be opened: {error}") from error
        try:
            self._set_durable()
            self._connection.executescript(_TABLES)
            self._check_or_write({"schema": str(SCHEMA), "dim": str(dim), "fingerprint": fingerprint}, path)
        except sqlite3.DatabaseError as error:
            self.close()
            is_locked = error.sqlite_errorcode == sqlite3.SQLITE_BUSY
            reason = "another process is using it" if is_locked else error
            raise IndexProblem(f"{path} cannot be used as an index: {reason}") from error
        except IndexProblem:
            self.close()
            raise

    def close(self) -> None:
        """Lets go of the file."""
        self._connection.close()

    def put(self, items: Sequence[Item]) -> int:
        """Adds items, or replaces those whose id is there, all or none; returns when they are on disk.

        Returns:
            The sequence number of the last one: higher than any before it.

        Raises:
            IndexFull: there is no room; nothing was stored.
        """
        rows = [
            (item.id, item.vector.astype(VECTOR_TYPE).tobytes(), json.dumps(item.metadata, ensure_ascii=False))
            for item in items
        ]
        with _Transaction(self._connection):
            self._connection.executemany("INSERT OR REPLACE INTO items (id, vector, metadata) VALUES (?, ?, ?)", rows)
            return int(self._connection.execute("SELECT max(sequence) FROM items").fetchone()[0])

    def delete(self, ids: Sequence[str]) -> int:
        """Removes the items with these ids, all in one; returns, when that is on disk, how many there were."""
        with _Transaction(self._connection):
            return sum(
                self._connection.execute("DELETE FROM items WHERE id = ?", (item_id,)).rowcount for item_id in set(ids)
            )

    def get(self, ids: Sequence[str]) -> dict[str, Item]:
        """The items with these ids, as many as there are."""
        found: dict[str, Item] = {}
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            query = f"SELECT * FROM items WHERE id IN ({','.join('?' * len(chunk))})"  # noqa: S608 - only question marks
            found |= {item.id: item for _, item in self._items(query, chunk)}
        return found

    def metadata(self, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The metadata of the items with these ids, without their vectors."""
        with closing(self._connection.cursor()) as cursor:
            found: dict[str, dict[str, Any]] = {}
            for item_id in ids:
                row = cursor.execute("SELECT metadata FROM items WHERE id = ?", (item_id,)).fetchone()
                if row is not None:
                    found[item_id] = json.loads(row[0])
            return found

    def page(self, limit: int, after: int) -> list[tuple[int, Item]]:
        """Up to `limit` items with a sequence number above `after`, in that order, each with its number."""
        query = "SELECT * FROM items WHERE sequence > ? ORDER BY sequence LIMIT ?"
        return list(self._items(query, (after, limit)))

    def all_vectors(self) -> tuple[list[str], npt.NDArray[np.float16]]:
        """Every id, and the vectors (n, dim) in the same order."""
        (count,) = self._connection.execute("SELECT count(*) FROM items").fetchone()
        ids: list[str] = []
        vectors = np.empty((count, self._dim), VECTOR_TYPE)
        for row, (item_id, blob) in enumerate(
            self._connection.execute("SELECT id, vector FROM items ORDER BY sequence")
        ):
            ids.append(item_id)
            vectors[row] = np.frombuffer(blob, VECTOR_TYPE)
        return ids, vectors

    def _items(self, query: str, parameters: Sequence[Any]) -> Iterable[tuple[int, Item]]:
        for sequence, item_id, blob, metadata in self._connection.execute(query, parameters):
            yield sequence, Item(item_id, np.frombuffer(blob, VECTOR_TYPE), json.loads(metadata))

    def _set_durable(self) -> None:
        self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # a second process would search what is no more
        (mode,) = self._connection.execute("PRAGMA journal_mode = WAL").fetchone()
        self._connection.execute("PRAGMA synchronous = FULL")
        (synchronous,) = self._connection.execute("PRAGMA synchronous").fetchone()
        if (mode, synchronous) != ("wal", 2):
            raise IndexProblem(
                f"SQLite runs with journal {mode}, synchronous {synchronous}: a commit would not be durable"
            )

    def _check_or_write(self, about: dict[str, str], path: Path) -> None:
        found = dict(self._connection.execute("SELECT key, value FROM about").fetchall())
        if not found:
            with _Transaction(self._connection):
                self._connection.executemany("INSERT INTO about VALUES (?, ?)", about.items())
            return
        if found["fingerprint"] != about["fingerprint"]:
            raise IndexConflict(
                f"the index was made with the bundle {found['fingerprint'][:16]}, and {about['fingerprint'][:16]} is being "
                "served: their embeddings cannot be compared. Serve that bundle, or index the images again elsewhere"
            )
        if found != about:
            raise IndexProblem(f"{path} has another schema than this version of rankone reads: {found}")


class _Transaction:
    """BEGIN … COMMIT, or ROLLBACK; a full disk becomes IndexFull."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        try:
            if kind is None:
                self._connection.execute("COMMIT")
                return
        except sqlite3.OperationalError as commit_error:
            error = commit_error
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        if isinstance(error, sqlite3.OperationalError):
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise IndexFull("there is no room left on the disk; nothing of this request was stored") from error
            raise error
