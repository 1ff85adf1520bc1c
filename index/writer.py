"""The writer thread: everything that waits goes into one transaction, and is acknowledged when that is on disk."""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, TypeVar, cast

from rankone.index.database import Spec, as_problem, open_writer, read_about, spec_of, write_about
from rankone.index.errors import IndexFull, IndexProblem, IndexReadOnly
from rankone.index.filters import Filter
from rankone.index.items import Record

Message = TypeVar("Message")


class Inbox(Generic[Message]):
    """Messages in the order they were put in; whatever was accepted lies before the end."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_open = True

    def put(self, message: Message) -> bool:
        """Whether the message was accepted: not after `close`."""
        with self._lock:
            if self._is_open:
                self._queue.put(message)
            return self._is_open

    def close(self) -> None:
        """Puts the end behind what was accepted."""
        with self._lock:
            if self._is_open:
                self._is_open = False
                self._queue.put(None)

    def get(self, *, block: bool = True) -> Message | None:
        """The next message, None at the end; raises queue.Empty where there is none and `block` is not set."""
        return self._queue.get(block)

    def empty(self) -> bool:
        """Whether nothing waits."""
        return self._queue.empty()


_FULL: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
"""No room for pages, or for the index of the write-ahead log, which SQLite reports as an I/O error."""
_OWN_FAULT: Final = (
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    sqlite3.DataError,
    ValueError,
)
"""What SQLite says of a value; of the disk it says something else."""


@dataclass(frozen=True)
class Put:
    """Records to add, or to set in the place of those with their ids."""

    records: Sequence[Record]


@dataclass(frozen=True)
class Delete:
    """Items to remove: those with these ids, or those that a filter holds for."""

    ids: Sequence[str] = ()
    where: Filter | None = None


Change = Put | Delete


@dataclass(frozen=True)
class Effect:
    """What a change did: the ids that are gone, the records that are there under new sequence numbers."""

    sequence: int
    dropped: Sequence[str] = ()
    numbers: Sequence[int] = ()
    records: Sequence[Record] = field(default=(), repr=False)


class Store:
    """The connection that writes, for one thread.

    Every change takes sequence numbers, one an added item and one a deletion, that are never used again: the last one names
    the state of the index.

    Raises:
        IndexDamaged: the file is no index, or not whole.
        IndexProblem: it cannot be opened, or has another schema.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = open_writer(path)
        try:
            about = read_about(self._connection, path)
            self.spec: Spec = spec_of(about, path)
            self.sequence = int(about["sequence"])
            self.recall = float(about["recall"]) if "recall" in about else None
            self.count = int(self._connection.execute("SELECT count(*) FROM items").fetchone()[0])
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise as_problem(error, path) from error
        except IndexProblem:
            self._connection.close()
            raise

    def commit(self, changes: Iterable[Change]) -> list[Effect | Exception]:
        """Makes changes in one transaction, and returns when they are on disk: what each did, or why it alone was refused.

        Raises:
            IndexFull: there is no room; nothing was changed.
            IndexReadOnly: the disk failed. What becomes of this transaction at the next start is not known.
        """
        sequence, count = self.sequence, self.count
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            effects = [self._attempt(change) for change in changes]
            write_about(self._connection, {"sequence": self.sequence})
            self._connection.execute("COMMIT")
        except BaseException as error:
            self.sequence, self.count = sequence, count
            self._roll_back()
            raise self._as_problem(error) from error
        return effects

    def note(self, **values: object) -> None:
        """Writes what was found out about the index into its file, in a transaction of its own."""
        with self._connection:
            write_about(self._connection, values)

    def checkpoint(self) -> None:
        """Moves what is in the write-ahead log into the file. Readers are not waited for.

        Raises:
            IndexReadOnly: the disk failed; a full one is no error, as all stays in the log.
        """
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            problem = self._as_problem(error)
            if not isinstance(problem, IndexFull):
                raise problem from error

    def close(self) -> None:
        """Checkpoints and lets go of the file."""
        self._connection.close()

    def _attempt(self, change: Change) -> Effect | Exception:
        """One change, taken back alone if it is at fault itself."""
        sequence, count = self.sequence, self.count
        self._connection.execute("SAVEPOINT one")
        effect: Effect | Exception
        try:
            effect = self._put(change) if isinstance(change, Put) else self._delete(change)
        except _OWN_FAULT as error:
            self.sequence, self.count = sequence, count
            self._connection.execute("ROLLBACK TO one")
            effect = error
        self._connection.execute("RELEASE one")
        return effect

    def _put(self, change: Put) -> Effect:
        records = change.records
        self._remove(record.id for record in records)
        numbers = range(self.sequence + 1, self.sequence + 1 + len(records))
        insert(self._connection, numbers, records)
        self.sequence += len(records)
        self.count += len(records)
        return Effect(self.sequence, (), numbers, records)

    def _delete(self, change: Delete) -> Effect:
        ids = list(change.ids)
        if change.where is not None:
            query = f"SELECT id FROM items WHERE {change.where.sql}"  # noqa: S608 - values are parameters
            ids += [item_id for (item_id,) in self._connection.execute(query, change.where.parameters)]
        gone = self._remove(ids)
        self.sequence += bool(gone)
        return Effect(self.sequence, gone)

    def _remove(self, ids: Iterable[str]) -> list[str]:
        """Deletes the rows of these ids; returns those that were there."""
        gone = []
        for item_id in ids:
            found = self._connection.execute("DELETE FROM items WHERE id = ? RETURNING sequence", (item_id,)).fetchall()
            for (sequence,) in found:
                self._connection.execute("DELETE FROM vectors WHERE sequence = ?", (sequence,))
                self._connection.execute("DELETE FROM thumbnails WHERE sequence = ?", (sequence,))
                gone.append(item_id)
        self.count -= len(gone)
        return gone

    def _roll_back(self) -> None:
        if self._connection.in_transaction:  # SQLite has ended it already where it had to
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def _as_problem(self, error: Any) -> BaseException:
        """An error of SQLite as one of ours; any other as it is."""
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:
            return cast(BaseException, error)
        if code in _FULL:
            return IndexFull("there is no room left on the disk; nothing of this request was stored")
        if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_ERROR):
            return IndexProblem(f"{self._path}: {error}; nothing of this request was stored")
        return IndexReadOnly(
            f"the disk failed ({error.sqlite_errorname}: {error}): what was acknowledged is searched, nothing more is "
            "stored. Look after the disk, then start the service again"
        )


def insert(connection: sqlite3.Connection, numbers: Sequence[int], records: Sequence[Record]) -> None:
    """New rows under these sequence numbers."""
    rows = list(zip(numbers, records, strict=True))
    connection.executemany(
        "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?)",
        [(n, r.id, r.metadata, r.sha256, r.fingerprint, r.checksum) for n, r in rows],
    )
    connection.executemany("INSERT INTO vectors VALUES (?, ?)", [(n, r.vector) for n, r in rows])
    thumbnails = [(n, r.thumbnail) for n, r in rows if r.thumbnail is not None]
    connection.executemany("INSERT INTO thumbnails VALUES (?, ?)", thumbnails)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Store]:
    """A store for as long as the block runs."""
    store = Store(path)
    try:
        yield store
    finally:
        store.close()


_MAX_RECORDS: Final = 4096
"""Of one transaction, in which requests share the wait for the disk."""
_CHECKPOINT_BYTES: Final = 1 << 22
_MAX_LOG_BYTES: Final = 1 << 26
"""Checkpoints are taken between transactions when nothing waits, or when the log has become this long."""
Waiting = tuple[Change, "Future[Effect]"]
Publish = Callable[[list[Effect]], None]
MakeRoom = Callable[[Sequence[Record]], None]


class Writer:
    """Owns a store.

    Before a transaction, `make_room` is called with its records, and may refuse them as IndexFull. `publish` is
    told of it after it is on disk and before it is acknowledged.
    """

    def __init__(self, store: Store, make_room: MakeRoom, publish: Publish, name: str) -> None:
        self._store, self._make_room, self._publish = store, make_room, publish
        self._inbox = Inbox[Waiting]()
        self._log_bytes = 0
        self.problem: str | None = None
        """Why nothing is stored any more, if that is so."""
        self._thread = threading.Thread(target=self._run, name=f"rankone-write-{name}", daemon=True)
        self._thread.start()

    def submit(self, change: Change) -> Future[Effect]:
        """What the change did, once it is on disk; or an IndexProblem."""
        future: Future[Effect] = Future()
        if not self._inbox.put((change, future)):
            future.set_exception(IndexProblem("the index is closed"))
        return future

    def close(self) -> None:
        """Commits what waits, then ends; the store is left open, to be closed as the last connection of the file."""
        self._inbox.close()
        self._thread.join()

    def _run(self) -> None:
        is_open = True
        while is_open:
            group, is_open = self._next_group()
            if group:
                self._commit(group)
            if self._log_bytes > (_CHECKPOINT_BYTES if self._inbox.empty() else _MAX_LOG_BYTES):
                self._checkpoint()

    def _next_group(self) -> tuple[list[Waiting], bool]:
        """Everything that waits, up to a limit, and whether more may come. A request that was given up is left out."""
        group: list[Waiting] = []
        num_records = 0
        while num_records < _MAX_RECORDS:
            try:
                waiting = self._inbox.get(block=not group)
            except queue.Empty:
                break
            if waiting is None:
                return group, False
            change, future = waiting
            if future.set_running_or_notify_cancel():
                group.append(waiting)
                num_records += _size(change)
        return group, True

    def _commit(self, group: Sequence[Waiting]) -> None:
        if self.problem is not None:
            _fail(group, IndexReadOnly(self.problem))
            return
        try:
            self._make_room([record for change, _ in group if isinstance(change, Put) for record in change.records])
            outcomes = self._store.commit([change for change, _ in group])
        except IndexReadOnly as error:
            self.problem = str(error)
            _fail(group, error)
        except Exception as error:
            if len(group) == 1 or not isinstance(error, IndexFull):
                _fail(group, error)
                return
            for waiting in group:  # a small one may have room where all together have not
                self._commit([waiting])
        else:
            self._log_bytes += sum(_num_bytes(change) for change, _ in group)
            self._publish([outcome for outcome in outcomes if isinstance(outcome, Effect)])
            for (_, future), outcome in zip(group, outcomes, strict=True):
                if isinstance(outcome, Effect):
                    future.set_result(outcome)
                else:
                    future.set_exception(outcome)

    def _checkpoint(self) -> None:
        self._log_bytes = 0
        if self.problem is None:
            try:
                self._store.checkpoint()
            except Exception as error:  # whatever it is: without this thread nobody would ever be answered
                self.problem = str(error) or repr(error)


def _fail(group: Sequence[Waiting], error: Exception) -> None:
    for _, future in group:
        future.set_exception(error)


def _size(change: Change) -> int:
    return len(change.records) if isinstance(change, Put) else len(change.ids) + 1


def _num_bytes(change: Change) -> int:
    """Roughly what a change adds to the write-ahead log, in which a page is 4 KB."""
    if isinstance(change, Put):
        return sum(len(r.vector) + len(r.metadata) + len(r.thumbnail or b"") + 4096 for r in change.records)
    return 4096 * (len(change.ids) + 1)
