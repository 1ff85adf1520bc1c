"""Reading the records of a file beside the writer."""

from __future__ import annotations

import json
import queue
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from rankone.index import faults
from rankone.index.backend import AnyReader
from rankone.index.database import open_reader, read_about
from rankone.index.errors import IndexDamaged
from rankone.index.filters import Field, Filter
from rankone.index.items import Record, Row, Summary
from rankone.index.spec import About
from rankone.index.sqlite_filters import has_scalar, json_path, sql_of

RECORDS: Final = """
SELECT sequence, id, metadata, sha256, fingerprint, vector, thumbnail, checksum
FROM items LEFT JOIN vectors USING (sequence) LEFT JOIN thumbnails USING (sequence)
"""
"""The columns are a sequence number and the fields of a `Record`."""
_IN_LIST: Final = "WHERE sequence IN (SELECT value FROM json_each(?))"


class Reader(AnyReader):
    """A connection that only reads, for one thread at a time. Each read sees the last commit, or the snapshot it runs in.

    Every method raises IndexDamaged if the file is damaged, and Cancelled inside a `cancellable` block that ends.
    """

    def __init__(self, path: Path, *, is_immutable: bool = False) -> None:
        self.path = path
        self._connection = open_reader(path, is_immutable=is_immutable)

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    @contextmanager
    def snapshot(self) -> Iterator[About]:
        """Inside this block, every read sees the same state of the index, the one this yields."""
        self._connection.execute("BEGIN")
        try:
            yield self.about()
        finally:
            self._connection.execute("ROLLBACK")

    def about(self) -> About:
        return read_about(self._connection, self.path)

    def check(self) -> None:
        found = [text for (text,) in self._fetch("PRAGMA integrity_check(5)")]
        if found != ["ok"]:
            raise IndexDamaged(f"{self.path} is damaged: {'; '.join(found)}; restore it from a backup")

    def backup(self, path: Path, tell: Callable[[int, int], None]) -> None:
        """Copies the state that this reader sees to a new file. `tell` is called with the pages left and the pages in all.

        The copy has no write-ahead log, so it can be read on a read-only disk.
        """
        with closing(sqlite3.connect(path)) as target:
            self._connection.backup(target, pages=1024, progress=lambda _, left, total: tell(left, total))
            target.execute("PRAGMA journal_mode = DELETE")

    def count(self) -> int:
        ((count,),) = self._fetch("SELECT count(*) FROM items")
        return int(count)

    def summaries(self) -> Iterator[Summary]:
        query = "SELECT sequence, id, metadata, sha256, checksum FROM items WHERE sequence > 0 ORDER BY sequence"
        return map(Summary._make, self._rows(query))

    def records(self, ids: Iterable[str]) -> dict[str, Record]:
        found = (self._records("WHERE id = ?", item_id) for item_id in dict.fromkeys(ids))
        return {record.id: record for rows in found for _, record in rows}

    def page(self, limit: int, after: int, where: Filter | None = None) -> list[Row]:
        condition, parameters = sql_of(where)
        clause = f"WHERE sequence > ? AND {condition} ORDER BY sequence LIMIT ?"
        return list(self._records(clause, after, *parameters, limit))

    def everything(self) -> Iterator[Row]:
        return self._records("WHERE sequence > 0 ORDER BY sequence")  # damage can make it null

    def sequences(self, where: Filter) -> list[int]:
        """The sequence numbers of the items that match the filter."""
        condition, parameters = sql_of(where)
        query = f"SELECT sequence FROM items WHERE {condition}"  # noqa: S608 - values are parameters
        return [sequence for (sequence,) in self._fetch(query, *parameters)]

    def labels(self, field: Field) -> dict[int, str]:
        """A metadata field as JSON by sequence number; items where it is missing, a list or an object are left out."""
        condition, parameters = has_scalar(field)
        query = f"SELECT sequence, metadata -> ? FROM items WHERE {condition}"  # noqa: S608 - values are parameters
        return dict(self._fetch(query, json_path(field), *parameters))

    def values(self, field: Field, ids: Sequence[str]) -> dict[str, str]:
        """A metadata field as JSON by id; items where it is missing, a list or an object are left out."""
        condition, parameters = has_scalar(field)
        query = f"SELECT id, metadata -> ? FROM items WHERE {condition} AND id IN (SELECT value FROM json_each(?))"  # noqa: S608
        return dict(self._fetch(query, json_path(field), *parameters, json.dumps(list(ids))))

    def at(self, sequences: Sequence[int]) -> Iterator[Row]:
        return self._records(f"{_IN_LIST} ORDER BY sequence", json.dumps(list(sequences)))

    def metadata(self, sequences: Iterable[int]) -> dict[int, str]:
        """The metadata as JSON of the items with these sequence numbers."""
        return dict(self._fetch("SELECT sequence, metadata FROM items " + _IN_LIST, json.dumps(list(sequences))))  # noqa: S608

    def vectors(self, sequences: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """The stored vectors of the items with these sequence numbers, each after its number, in any order.

        One at a time: memory for many costs more time than reading them.
        """
        return self._rows("SELECT sequence, vector FROM vectors " + _IN_LIST, json.dumps(sequences))  # noqa: S608

    def _records(self, clause: str, *parameters: Any) -> Iterator[Row]:
        for sequence, *values in self._rows(f"{RECORDS} {clause}", *parameters):
            yield sequence, Record(*values)

    def _fetch(self, query: str, *parameters: Any) -> list[Any]:
        return list(self._rows(query, *parameters))

    def _rows(self, query: str, *parameters: Any) -> Iterator[Any]:
        with faults.told(self.path):
            for row in self._connection.execute(query, parameters):  # noqa: UP028 - it would also close the cursor
                yield row


class Readers:
    """A pool of readers of one file, as many as are in use at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: queue.SimpleQueue[Reader] = queue.SimpleQueue()

    @contextmanager
    def borrow(self) -> Iterator[Reader]:
        """A reader for this thread until the block ends."""
        try:
            reader = self._idle.get_nowait()
        except queue.Empty:
            reader = Reader(self._path)
        try:
            yield reader
        finally:
            self._idle.put(reader)

    def close(self) -> None:
        """Closes all readers; none may be in use."""
        while not self._idle.empty():
            self._idle.get_nowait().close()
