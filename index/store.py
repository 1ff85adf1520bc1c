"""Changes to the file of an index, many in one transaction. What is committed is on disk; nothing else is acknowledged."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from sqlite3 import DataError, IntegrityError, InterfaceError, ProgrammingError
from typing import Final

from rankone.index.acknowledged import Acknowledged
from rankone.index.change import Change, Effect, Patch
from rankone.index.database import BUSY_MS, DURABLE, closed_on_error, open_reader, open_writer, read_about, write_about
from rankone.index.errors import IndexDamaged, IndexFull, IndexProblem, IndexReadOnly, MetadataTooLong, UnknownItem
from rankone.index.faults import free_bytes
from rankone.index.items import Record
from rankone.index.loss import settle
from rankone.index.reader import RECORDS
from rankone.index.sqlite_filters import sql_of

_FULL: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
"""No room for pages, or for the index of the write-ahead log, which SQLite reports as an I/O error."""
_FAULT_OF_ONE: Final = (
    *(DataError, IntegrityError, InterfaceError, ProgrammingError, ValueError),
    *(UnknownItem, IndexDamaged, MetadataTooLong),
)
"""What SQLite raises about a value, as opposed to the disk, and why an item cannot be patched."""


class Store:
    """The connection that writes, for one thread at a time.

    Every added item and every deletion takes a new sequence number. A number is never used again, so the last one names the
    state of the index.

    Raises:
        IndexDamaged: the file is not an index, or is damaged.
        IndexProblem: it cannot be opened, or has another schema.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        settle(path)
        self._connection = open_writer(path)
        with closed_on_error(self._connection, path), ExitStack() as opened:
            about = read_about(self._connection, path)
            self.spec, self.sequence, self.recall = about.spec, about.sequence, about.recall
            self.count = int(self._connection.execute("SELECT count(*) FROM items").fetchone()[0])
            self._acknowledged = Acknowledged(path)
            opened.callback(self._acknowledged.close)
            if self.sequence < self._acknowledged.sequence:  # after a loss, whose numbers must not be given again
                self.sequence = self._acknowledged.sequence
                with self._transaction():
                    pass
            self._acknowledged.write(self.sequence)
            opened.pop_all()
        self._is_open = True

    def commit(self, changes: Iterable[Change]) -> list[Effect | Exception]:
        """Makes changes in one transaction, which is on disk on return: what each did, or why that one was refused.

        Raises:
            IndexFull: the disk is full; nothing was changed.
            IndexReadOnly: the disk failed. Whether the next start finds this transaction is unknown.
        """
        sequence, count = self.sequence, self.count
        try:
            with self._transaction():
                return [self._attempt(change) for change in changes]
        except BaseException as error:
            self.sequence, self.count = sequence, count
            raise self._as_problem(error) from error

    def acknowledge(self, *, is_checkpointed: bool = False) -> None:
        """Notes that what was committed may be acknowledged. Raises IndexReadOnly: the disk failed."""
        try:
            self._acknowledged.write(self.sequence, is_checkpointed=is_checkpointed)
        except OSError as error:
            raise _read_only(str(error)) from error

    def write_recall(self, recall: float) -> None:
        """Keeps the recall that was measured."""
        with self._connection:
            write_about(self._connection, recall=recall)

    def checkpoint(self) -> bool:
        """Moves the write-ahead log into the file, without waiting for readers; returns whether the file then holds all of it.

        That is noted before SQLite begins the log anew.

        Raises:
            IndexFull: the disk is full. Everything stays in the log.
            IndexReadOnly: the disk failed.
        """
        is_whole = self._checkpoint("PASSIVE")
        if is_whole:
            self.acknowledge(is_checkpointed=True)
        return is_whole

    def shrink(self) -> None:
        """Checkpoints, and gives the room of the log back unless a reader is in it; for the errors see `checkpoint`."""
        if self.checkpoint():
            self._connection.execute("PRAGMA busy_timeout = 0")
            try:
                self._checkpoint("TRUNCATE")
            finally:
                self._connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")

    def _checkpoint(self, mode: str) -> bool:
        try:
            self._check_room()
            _, frames, moved = self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.Error as error:
            raise self._as_problem(error) from error
        return bool(frames == moved)

    def _check_room(self) -> None:
        """Raises IndexFull if the file cannot grow by what the log would add: the attempt would take the room that is left."""
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        with suppress(OSError):  # the file is being dropped
            if pages * int(DURABLE["page_size"]) - self._path.stat().st_size > free_bytes(self._path.parent):
                raise IndexFull(f"there is no room left on the disk to write the log of {self._path} into it")

    def close(self) -> None:
        """Checkpoints and closes the file. If it cannot take all of the log, the log stays."""
        if not self._is_open:
            return
        self._is_open, is_held, last = False, False, None
        with suppress(IndexProblem, MemoryError):  # whatever fails, the log has it all
            is_held = self.checkpoint()
        if not is_held:  # SQLite would try again and remove the log without a word; it does not if a reader is the last
            with suppress(IndexProblem):
                last = open_reader(self._path)
                read_about(last, self._path)
        self._connection.close()
        if last is not None:
            last.close()
        self._acknowledged.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commits what the block does, with the new sequence number; or undoes it."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            write_about(self._connection, sequence=self.sequence)
            self._connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # after some errors, SQLite has ended the transaction itself
                self._connection.execute("ROLLBACK")
            raise

    def _attempt(self, change: Change) -> Effect | Exception:
        """Makes one change, or undoes it alone if it is at fault itself."""
        sequence, count = self.sequence, self.count
        self._connection.execute("SAVEPOINT one")
        effect: Effect | Exception
        try:
            effect = self._make(change)
        except _FAULT_OF_ONE as error:
            self.sequence, self.count = sequence, count
            self._connection.execute("ROLLBACK TO one")
            effect = error
        self._connection.execute("RELEASE one")
        return effect

    def _make(self, change: Change) -> Effect:
        ids, records = list(change.ids), [*change.records, *map(self._patched, change.patches)]
        if change.where is not None:
            condition, parameters = sql_of(change.where)
            query = f"SELECT id FROM items WHERE {condition}"  # noqa: S608 - values are parameters
            ids += [item_id for (item_id,) in self._connection.execute(query, parameters)]
        removed = self._remove(ids)
        self.sequence += bool(removed)
        self._remove(record.id for record in records)
        numbers = range(self.sequence + 1, self.sequence + 1 + len(records))
        rows = list(zip(numbers, records, strict=True))
        items = [(n, r.id, r.metadata, r.sha256, r.fingerprint, r.checksum) for n, r in rows]
        thumbnails = [(n, r.thumbnail) for n, r in rows if r.thumbnail is not None]
        self._connection.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?)", items)
        self._connection.executemany("INSERT INTO vectors VALUES (?, ?)", [(n, r.vector) for n, r in rows])
        self._connection.executemany("INSERT INTO thumbnails VALUES (?, ?)", thumbnails)
        self.sequence += len(records)
        self.count += len(records)
        return Effect(self.sequence, removed, numbers, records)

    def _patched(self, patch: Patch) -> Record:
        """The patched record of the item; for the errors see `Patch.apply`."""
        row = self._connection.execute(f"{RECORDS} WHERE id = ?", (patch.id,)).fetchone()
        return patch.apply(None if row is None else Record(*row[1:]), self.spec)

    def _remove(self, ids: Iterable[str]) -> list[str]:
        """Deletes the rows of these ids; returns the ids that existed."""
        removed = []
        for item_id in ids:
            found = self._connection.execute("DELETE FROM items WHERE id = ? RETURNING sequence", (item_id,)).fetchall()
            for (sequence,) in found:
                self._connection.execute("DELETE FROM vectors WHERE sequence = ?", (sequence,))
                self._connection.execute("DELETE FROM thumbnails WHERE sequence = ?", (sequence,))
                removed.append(item_id)
        self.count -= len(removed)
        return removed

    def _as_problem(self, error: BaseException) -> BaseException:
        """An error of SQLite as an IndexProblem; any other error as it is."""
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:
            return error
        if code in _FULL:
            return IndexFull("there is no room left on the disk; nothing of this request was stored")
        if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_ERROR):
            return IndexProblem(f"{self._path}: {error}; nothing of this request was stored")
        return _read_only(f"{getattr(error, 'sqlite_errorname', code)}: {error}")


def _read_only(what: str) -> IndexReadOnly:
    return IndexReadOnly(
        f"the disk failed ({what}): searches go on, but nothing more is stored. Check the disk, then start the service again"
    )
