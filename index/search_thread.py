"""The search thread: it answers queries in batches and follows the disk.

A batch is answered from one state of the index: the thread opens a snapshot of the file, in which filters and metadata are
read, and brings its rows to the sequence number of that snapshot. So a search sees everything that was acknowledged before it
was asked, and a writer never waits for it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from threading import Lock, Thread
from typing import Final

import faiss
import numpy as np
import orjson

from rankone.index.cancellation import cancellable
from rankone.index.change import Effect
from rankone.index.errors import DeviceProblem, IndexFull, IndexProblem
from rankone.index.filters import Field, Filter
from rankone.index.gallery import Gallery, Rows, RowTable
from rankone.index.reader import Reader
from rankone.index.search import Hit, Hits, Query, ScoredRow, search
from rankone.index.spec import Spec
from rankone.index.writer import ClosableQueue

_MAX_QUERIES: Final = 256
"""In a batch, so that early requests do not wait for an endless row of later ones."""


Asked = tuple[Query, "Future[Hits]"]


class SearchThread:
    """The only thread that touches the rows of an index: `gallery` and `table`, in the state of `sequence`.

    It owns `reader`. It holds `turn` while it computes, as all indexes share the processor, each with `num_threads` threads.
    """

    def __init__(
        self, spec: Spec, reader: Reader, gallery: Gallery, table: RowTable, sequence: int, num_threads: int, turn: Lock
    ) -> None:
        self._spec, self._reader, self._gallery, self._table = spec, reader, gallery, table
        self._sequence, self._num_threads, self._turn = sequence, num_threads, turn
        self._queue = ClosableQueue[Asked | Callable[[], None]]()
        self._waiting: deque[Asked] = deque()
        self._is_open = True
        self.problem: str | None = None
        """Why nothing is searched any more, if so."""
        self._thread = Thread(target=self._run, name=f"rankone-search-{reader.path.stem}", daemon=True)
        self._thread.start()

    def submit_search(self, query: Query) -> Future[Hits]:
        """The hits of a query. Cancelling the future ends its reads, or costs nothing if its turn has not come."""
        future: Future[Hits] = Future()
        if not self._queue.put((query, future)):
            future.set_exception(IndexProblem(self.problem or "the index is closed"))
        return future

    def reserve(self, count: int, ids: Collection[str]) -> None:
        """Allocates memory for `count` items and those with these ids. Raises IndexFull if there is not enough.

        Called before items are stored, so that nothing is stored that cannot be searched.
        """
        fewest, most = self._gallery.stable_row_counts  # changes only when the writer, who calls this, asks for it
        if fewest <= count + len(ids) <= most:
            return
        reserved: Future[None] = Future()
        if not self._queue.put(partial(self._fit, ids, reserved)):
            raise IndexProblem(self.problem or "the index is closed")
        reserved.result()

    def follow(self, effects: list[Effect]) -> None:
        """Applies a transaction that is on disk to the rows."""
        self._queue.put(partial(self._apply, effects))

    def close(self) -> None:
        """Answers what waits and ends the thread."""
        self._queue.close()
        self._thread.join()
        self._reader.close()

    def _run(self) -> None:
        faiss.omp_set_num_threads(self._num_threads)  # holds for the calling thread alone
        while self._is_open or self._waiting:
            if not self._waiting:
                self._receive()
            while not self._queue.empty():
                self._receive()
            self._answer_batch()

    def _receive(self) -> None:
        """Waits for a message. A change is applied at once, a query is kept."""
        message = self._queue.get()
        if message is None:
            self._is_open = False
        elif isinstance(message, tuple):
            self._waiting.append(message)
        else:
            message()

    def _fit(self, ids: Collection[str], reserved: Future[None]) -> None:
        try:
            num_new = sum(item_id not in self._table for item_id in set(ids))
            self._gallery.fit(len(self._table) + num_new)
            reserved.set_result(None)
        except (DeviceProblem, MemoryError) as error:
            reserved.set_exception(IndexFull(f"nothing of this request was stored: {error}"))
        except Exception as error:
            reserved.set_exception(error)

    def _apply(self, effects: Iterable[Effect]) -> None:
        """Applies a change to the rows. If that fails, they differ from the disk and must not be searched any more."""
        try:
            for effect in effects if self.problem is None else ():
                for item_id in effect.removed:
                    if (move := self._table.remove(item_id)) is not None:
                        self._gallery.move(*move)
                for number, record in zip(effect.numbers, effect.records, strict=True):
                    vector = np.frombuffer(record.vector, self._spec.stored)
                    self._gallery.write(self._table.add(record.id, number), vector[None])
                self._sequence = effect.sequence
        except Exception as error:
            self.problem = f"the search thread failed, start the service again: {type(error).__name__}: {error}"
            self._queue.close()

    def _answer_batch(self) -> None:
        alike: dict[tuple[Filter | None, Field | None], list[Asked]] = defaultdict(list)
        num_queries = 0
        while self._waiting and num_queries < _MAX_QUERIES:
            query, future = self._waiting.popleft()
            if not future.cancelled():
                alike[query.where, query.group_by].append((query, future))
                num_queries += len(query.vectors)
        if not alike:
            return
        try:
            with self._reader.snapshot() as about:
                while self._sequence < about.sequence and self.problem is None:  # committed, and about to be told
                    self._receive()
                if self.problem is not None:
                    raise IndexProblem(self.problem)
                for (where, group_by), group in alike.items():
                    self._answer_alike(group, where, group_by)
        except Exception as error:
            for group in alike.values():
                _fail(group, error)

    def _answer_alike(self, group: Sequence[Asked], where: Filter | None, group_by: Field | None) -> None:
        """Answers queries with the same filter together. If the filter is at fault, only they fail."""
        try:
            vectors = np.ascontiguousarray(np.concatenate([query.vectors for query, _ in group]), np.float32)
            options = [option for query, _ in group for option in query.options]
            with cancellable(lambda: all(future.cancelled() for _, future in group)):
                rows, labels = self._scope(where, group_by)
                with self._turn:
                    found = search(self._gallery, self._table.ids, vectors, options, rows, labels)
                answers = iter(self._with_metadata(found))
        except Exception as error:
            _fail(group, error)
            return
        for query, future in group:
            hits = [next(answers) for _ in query.vectors]
            if future.set_running_or_notify_cancel():
                future.set_result(hits)

    def _scope(self, where: Filter | None, group_by: Field | None) -> tuple[Rows, dict[int, str] | None]:
        """The rows that take part, and their labels."""
        rows = self._table.all_rows if where is None else self._table.rows_of(self._reader.sequences(where))
        if group_by is None:
            return rows, None
        labels = self._table.labels(self._reader.labels(group_by))
        return np.intersect1d(rows, np.fromiter(labels, np.int64)), labels

    def _with_metadata(self, found: Sequence[Sequence[ScoredRow]]) -> Hits:
        rows = list({scored.row for answer in found for scored in answer})
        numbers = self._table.sequences[rows].tolist()
        texts = self._reader.metadata(numbers)
        metadata = {row: orjson.loads(texts[number]) for row, number in zip(rows, numbers, strict=True)}
        return [[Hit(scored.id, scored.score, metadata[scored.row]) for scored in answer] for answer in found]


def _fail(group: Iterable[Asked], error: Exception) -> None:
    for _, future in group:
        if not future.done() and future.set_running_or_notify_cancel():
            future.set_exception(error)
