"""The writer thread: everything that waits goes into one transaction, and is acknowledged when that is on disk."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final

from rankone.index.errors import IndexFull, IndexProblem, IndexReadOnly
from rankone.index.inbox import Inbox
from rankone.index.items import Record
from rankone.index.store import Change, Effect, Put, Store

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
