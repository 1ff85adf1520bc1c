"""Writing: a thread commits all waiting changes in one transaction and acknowledges them once that is on disk."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Final, Generic, TypeVar

from rankone.index.ballast import NUM_BYTES, Ballast
from rankone.index.change import Change, Effect
from rankone.index.errors import IndexFull, IndexProblem, IndexReadOnly
from rankone.index.items import Record
from rankone.index.store import Store

logger = logging.getLogger("rankone")

_MAX_RECORDS: Final = 4096
"""In one transaction, whose wait for the disk the requests share."""
_CHECKPOINT_BYTES: Final = 1 << 22
"""The log is checkpointed between transactions from this size on when no change waits, and from that of the ballast in any
case."""

Message = TypeVar("Message")


class ClosableQueue(Generic[Message]):
    """A queue with an end: a message is either refused, or received before the end."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_open = True

    def put(self, message: Message) -> bool:
        """Adds a message; False if the queue is closed."""
        with self._lock:
            if self._is_open:
                self._queue.put(message)
            return self._is_open

    def close(self) -> None:
        """Refuses messages from now on."""
        with self._lock:
            if self._is_open:
                self._is_open = False
                self._queue.put(None)

    def get(self, *, block: bool = True) -> Message | None:
        """The next message, or None at the end. Raises queue.Empty if nothing waits and `block` is False."""
        return self._queue.get(block)

    def empty(self) -> bool:
        """Whether no message waits."""
        return self._queue.empty()


Waiting = tuple[Change, "Future[Effect]"]
Reserve = Callable[[Sequence[Record]], None]
Publish = Callable[[list[Effect]], None]


class Writer:
    """The thread that writes.

    `reserve` is called with the records of a transaction before it, and may refuse them with IndexFull. `publish` is called
    with the effects of a transaction when it is on disk, before it is acknowledged. On a full disk, `ballast` makes room for
    deletions and checkpoints.
    """

    def __init__(self, store: Store, reserve: Reserve, publish: Publish, ballast: Ballast, name: str) -> None:
        self._store, self._reserve, self._publish, self._ballast = store, reserve, publish, ballast
        self._queue = ClosableQueue[Waiting]()
        self._log_bytes = 0
        self.problem: str | None = None
        """Why nothing is stored any more, if so."""
        self._thread = threading.Thread(target=self._run, name=f"rankone-write-{name}", daemon=True)
        self._thread.start()

    def submit(self, change: Change) -> Future[Effect]:
        """What the change did, once it is on disk. A change that is cancelled before its turn is not made."""
        future: Future[Effect] = Future()
        if not self._queue.put((change, future)):
            future.set_exception(IndexProblem("the index is closed"))
        return future

    def close(self) -> None:
        """Commits what waits and ends the thread. The store stays open: it must be the last connection to close."""
        self._queue.close()
        self._thread.join()

    def _run(self) -> None:
        is_open = True
        while is_open:
            group, is_open = self._next_group()
            if group:
                self._commit(group)
            if self.problem is None:
                self._maintain()

    def _next_group(self) -> tuple[list[Waiting], bool]:
        """All changes that wait, up to a limit, and whether more may come."""
        group: list[Waiting] = []
        num_records = 0
        while num_records < _MAX_RECORDS:
            try:
                waiting = self._queue.get(block=not group)
            except queue.Empty:
                break
            if waiting is None:
                return group, False
            change, future = waiting
            if future.set_running_or_notify_cancel():
                group.append(waiting)
                num_records += len(change.records) + len(change.patches) + len(change.ids) + 1
        return group, True

    def _commit(self, group: Sequence[Waiting]) -> None:
        try:
            if self.problem is not None:
                raise IndexReadOnly(self.problem)
            self._reserve([record for change, _ in group for record in change.records])
            outcomes = self._commit_on_full_disk([change for change, _ in group])
        except Exception as error:
            if isinstance(error, IndexFull) and len(group) > 1:
                for waiting in group:  # a small change may have room where all together have not
                    self._commit([waiting])
                return
            if isinstance(error, IndexReadOnly):
                self._end(error)
            for _, future in group:
                future.set_exception(error)
            return
        effects = [outcome for outcome in outcomes if isinstance(outcome, Effect)]
        self._log_bytes += sum(map(_num_bytes, effects))
        self._publish(effects)  # whatever becomes of the note: it is committed, and searches wait for it
        try:
            self._store.acknowledge()
        except Exception as error:
            self._end(error)
            outcomes = [error] * len(group)
        for (_, future), outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, Effect):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)

    def _commit_on_full_disk(self, changes: Sequence[Change]) -> list[Effect | Exception]:
        """Commits changes. Without room, it starts the log anew and lets changes that only remove items use the reserve."""
        only_removes = not any(change.records or change.patches for change in changes)
        if not only_removes:
            self._ballast.require()
        try:
            return self._store.commit(changes)
        except IndexFull:
            if only_removes:
                self._ballast.release()
            with suppress(IndexFull):  # first: what it adds to the database is at most what it frees in the log
                self._store.checkpoint()
        try:
            return self._store.commit(changes)
        except IndexFull as full:
            what = (
                "Delete fewer items at once, or free some space" if only_removes else "Delete items, or free some space"
            )
            raise IndexFull(f"{full}. {what}") from full

    def _maintain(self) -> None:
        """Checkpoints a long log. On a disk that was full, gives the room of the log back, and keeps room for the next time."""
        most = self._ballast.num_bytes or NUM_BYTES  # a checkpoint may need as much room
        try:
            if self._log_bytes > (min(_CHECKPOINT_BYTES, most // 2) if self._queue.empty() else most):
                self._log_bytes = 0
                try:
                    self._store.checkpoint()
                except IndexFull:
                    self._ballast.release()
            if not self._ballast.is_whole:
                with suppress(IndexFull):
                    self._store.shrink()
                self._ballast.restore()
        except Exception as error:  # of any kind: without this thread no request would be answered
            self._end(error)

    def _end(self, error: Exception) -> None:
        """Refuses all further changes."""
        if self.problem is None:
            self.problem = str(error) or repr(error)
            logger.error("%s: %s", self._thread.name, self.problem)


def _num_bytes(effect: Effect) -> int:
    """Roughly what a change has added to the write-ahead log, whose pages have 4 KB."""
    added = sum(len(r.vector) + len(r.metadata) + len(r.thumbnail or b"") + 4096 for r in effect.records)
    return added + 4096 * (len(effect.removed) + 1)
