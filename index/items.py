"""Reading the file of an index beside the writer: each reader sees the last commit, or a snapshot that it holds."""

from __future__ import annotations

import hashlib
import json
import math
import queue
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from rankone.index.database import IsOver, Spec, about_of, as_problem, interest, open_reader
from rankone.index.errors import IndexDamaged
from rankone.index.filters import Filter, has_scalar


@dataclass(frozen=True)
class Item:
    """One image of the index: its id, its embedding (dim,) and what its owner wrote to it.

    `sha256` is of the encoded image, where there was one; `thumbnail` is a small JPEG of it, where the index keeps them.
    """

    id: str
    vector: npt.NDArray[np.floating] = field(repr=False)
    metadata: dict[str, Any] = field(default_factory=dict)
    sha256: str | None = None
    thumbnail: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Record:
    """A row, but for its sequence number: what the checksum covers, and the checksum."""

    id: str
    metadata: str
    sha256: str | None
    fingerprint: str
    vector: bytes = field(repr=False)
    thumbnail: bytes | None = field(repr=False)
    checksum: bytes

    @property
    def is_whole(self) -> bool:
        """Whether the checksum is that of the rest, and nothing has become of another type, which it does not cover."""
        texts, blobs = (
            (self.id, self.metadata, self.fingerprint, self.sha256 or ""),
            (self.vector, self.thumbnail or b""),
        )
        if not (all(isinstance(part, str) for part in texts) and all(isinstance(part, bytes) for part in blobs)):
            return False
        return self.checksum == _checksum(
            self.id, self.metadata, self.sha256, self.fingerprint, self.vector, self.thumbnail
        )

    def item(self, spec: Spec) -> Item:
        """What was added."""
        vector = np.frombuffer(self.vector, spec.stored)
        return Item(self.id, vector, orjson.loads(self.metadata), self.sha256, self.thumbnail)


def record_of(item: Item, spec: Spec) -> Record:
    """The item as it is kept: its vector in the type of the index, its metadata as JSON."""
    metadata = orjson.dumps(item.metadata).decode()
    vector = np.asarray(item.vector).astype(spec.stored).tobytes()
    thumbnail = item.thumbnail if spec.thumbnails else None
    checksum = _checksum(item.id, metadata, item.sha256, spec.fingerprint, vector, thumbnail)
    return Record(item.id, metadata, item.sha256, spec.fingerprint, vector, thumbnail, checksum)


def _checksum(*parts: str | bytes | None) -> bytes:
    """16 bytes of the SHA-256 of the parts, each with its length before it, so that none can lend to its neighbour."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part or b""
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()[:16]


_RECORDS: Final = """
SELECT sequence, id, metadata, sha256, fingerprint, vector, thumbnail, checksum
FROM items LEFT JOIN vectors USING (sequence) LEFT JOIN thumbnails USING (sequence)
"""
_ALL: Final = Filter("(1)")
_OPERATIONS: Final = 100_000
"""Of SQLite's machine between two looks at whether anybody waits: some milliseconds, and long enough to cost nothing."""
Row = tuple[int, Record]


class Reader:
    """A connection that only reads, for one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = open_reader(path)

    def close(self) -> None:
        """Lets go of the file."""
        self._connection.close()

    def give_up_when(self, is_over: IsOver | None) -> None:
        """From now on, what is read ends with GivenUp once `is_over` returns True; None for never."""
        self._connection.set_progress_handler(is_over, _OPERATIONS)

    @contextmanager
    def reading_until(self, deadline: float) -> Iterator[None]:
        """Within, what is still being read at the deadline, by `time.perf_counter`, ends with GivenUp."""
        self.give_up_when(None if deadline == math.inf else lambda: time.perf_counter() >= deadline)
        try:
            yield
        finally:
            self.give_up_when(None)

    @contextmanager
    def snapshot(self) -> Iterator[int]:
        """Within, every read sees one state of the index: that of the sequence number this yields."""
        self._connection.execute("BEGIN")
        try:
            yield self.state()
        finally:
            self._connection.execute("ROLLBACK")

    def about(self) -> dict[str, str]:
        """The table `about`."""
        return about_of(self._fetch("SELECT key, value FROM about"), self._path)

    def state(self) -> int:
        """The sequence number of the last change.

        Raises:
            IndexDamaged: the file does not tell.
        """
        about = self.about()
        if "sequence" not in about:
            raise IndexDamaged(f"{self._path} does not tell the state it is in; restore it from a backup")
        return int(about["sequence"])

    def content(self) -> str:
        """A digest of all items in their order, by their checksums: the same of the same content, and of nothing else."""
        digest = hashlib.sha256()
        try:
            for (checksum,) in self._connection.execute("SELECT hex(checksum) FROM items ORDER BY sequence"):
                digest.update(f"{checksum}\n".encode())
        except sqlite3.DatabaseError as error:
            raise as_problem(error, self._path) from error
        return digest.hexdigest()

    def files(self) -> list[tuple[str, str]]:
        """The id and the sha256 of every item that came from a file."""
        return self._fetch("SELECT id, sha256 FROM items WHERE sha256 IS NOT NULL")

    def origins(self) -> list[tuple[str, str | None, str]]:
        """Id, sha256 and metadata as JSON of every item, in order: a few hundred bytes each, without vector and thumbnail."""
        return self._fetch("SELECT id, sha256, metadata FROM items ORDER BY sequence")

    def check_file(self) -> None:
        """Looks at every page of the file.

        Raises:
            IndexDamaged: it is not whole.
        """
        found = [text for (text,) in self._fetch("PRAGMA integrity_check(5)")]
        if found != ["ok"]:
            raise IndexDamaged(f"{self._path} is damaged: {'; '.join(found)}; restore it from a backup")

    def backup(self, path: Path, tell: Callable[[int, int], None]) -> None:
        """Copies the state that this reader sees to a new file, telling pages that are left and pages in all.

        The copy has no write-ahead log, so that it can be read where nothing can be written.
        """
        with closing(sqlite3.connect(path)) as target:
            self._connection.backup(target, pages=1024, progress=lambda _, left, total: tell(left, total))
            target.execute("PRAGMA journal_mode = DELETE")

    def count(self, where: Filter = _ALL) -> int:
        """How many items there are."""
        ((count,),) = self._fetch(f"SELECT count(*) FROM items WHERE {where.sql}", where.parameters)  # noqa: S608
        return int(count)

    def records(self, ids: Iterable[str]) -> dict[str, Record]:
        """The records with these ids, as many as there are."""
        query = f"{_RECORDS} WHERE id = ?"
        found = (self._records(query, (item_id,)) for item_id in dict.fromkeys(ids))
        return {record.id: record for rows in found for _, record in rows}

    def page(self, limit: int, after: int, where: Filter | None = None) -> list[Row]:
        """Up to `limit` records after sequence number `after` that the filter holds for, in that order."""
        where = where or _ALL
        query = f"{_RECORDS} WHERE sequence > ? AND {where.sql} ORDER BY sequence LIMIT ?"
        return list(self._records(query, (after, *where.parameters, limit)))

    def everything(self, after: int = 0) -> Iterator[Row]:
        """All records after sequence number `after`, in order, one at a time."""
        return self._records(f"{_RECORDS} WHERE sequence > ? ORDER BY sequence", (after,))

    def sequences(self, where: Filter) -> list[int]:
        """The sequence numbers of the items that the filter holds for."""
        query = f"SELECT sequence FROM items WHERE {where.sql}"  # noqa: S608 - values are parameters
        return [sequence for (sequence,) in self._fetch(query, where.parameters)]

    def labels(self, path: str) -> dict[int, str]:
        """The value of a metadata field as JSON, by sequence number, where it is neither list nor object nor missing."""
        where = has_scalar(path)
        query = f"SELECT sequence, metadata -> ? FROM items WHERE {where.sql}"  # noqa: S608 - values are parameters
        return dict(self._fetch(query, (path, *where.parameters)))

    def metadata(self, sequences: Iterable[int]) -> dict[int, str]:
        """The metadata, as JSON, of the items with these numbers."""
        query = "SELECT sequence, metadata FROM items WHERE sequence = ?"
        return dict(row for sequence in sequences for row in self._fetch(query, (sequence,)))

    def vectors(self, sequences: Sequence[int]) -> list[bytes]:
        """The vectors of the items with these numbers, in order."""
        query = "SELECT sequence, vector FROM vectors WHERE sequence IN (SELECT value FROM json_each(?))"
        found = dict(self._fetch(query, (json.dumps(sequences),)))
        return [found[sequence] for sequence in sequences]

    def _records(self, query: str, parameters: Sequence[Any]) -> Iterator[Row]:
        try:
            for sequence, *values in self._connection.execute(query, parameters):
                yield sequence, Record(*values)
        except sqlite3.DatabaseError as error:
            raise as_problem(error, self._path) from error

    def _fetch(self, query: str, parameters: Sequence[Any] = ()) -> list[Any]:
        try:
            return self._connection.execute(query, parameters).fetchall()
        except sqlite3.DatabaseError as error:
            raise as_problem(error, self._path) from error


class Readers:
    """As many readers of one file as are in use at once, kept for the next who asks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: queue.SimpleQueue[Reader] = queue.SimpleQueue()

    @contextmanager
    def borrow(self) -> Iterator[Reader]:
        """A reader for this thread, until the block ends; it gives up when nobody waits any more, see `read_until`."""
        try:
            reader = self._idle.get_nowait()
        except queue.Empty:
            reader = Reader(self._path)
        reader.give_up_when(interest())
        try:
            yield reader
        finally:
            self._idle.put(reader)

    def close(self) -> None:
        """Lets go of the file; nobody may be reading."""
        while not self._idle.empty():
            self._idle.get_nowait().close()
