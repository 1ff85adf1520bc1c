"""The search thread: it alone touches the rows in memory, answers what waits in batches, and follows the disk.

A batch is answered from one state of the index. The thread opens a snapshot of the file, in which filters and metadata are
read, and brings its rows to the very sequence number of that snapshot. What was acknowledged before a request came is in it,
and a writer never waits.
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

import faiss
import numpy as np
import orjson

from rankone.index.database import Spec
from rankone.index.errors import DeviceProblem, IndexFull, IndexProblem
from rankone.index.exact import as_queries
from rankone.index.filters import Filter
from rankone.index.gallery import Directory, Gallery, Rows, Vectors
from rankone.index.items import Reader
from rankone.index.writer import Effect, Inbox

_SPARE: Final = 16
"""Fetched beyond k, so that a tie at the end need not be asked for again."""


@dataclass(frozen=True)
class Wish:
    """What one query is to be answered with."""

    k: int
    min_score: float = -np.inf
    exclude: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Place:
    """A row that a query found, with its cosine in [-1, 1]."""

    row: int
    id: str
    score: float


@dataclass(frozen=True)
class Scope:
    """The rows that take part, all below a number or these alone; with labels, one for each label."""

    rows: Rows | int
    labels: Mapping[int, str] | None = None

    @property
    def size(self) -> int:
        """How many rows those are."""
        return self.rows if isinstance(self.rows, int) else len(self.rows)


def ranked(
    gallery: Gallery, directory: Directory, queries: Vectors, wishes: Sequence[Wish], scope: Scope
) -> list[list[Place]]:
    """The answer to every query (m, dim).

    Of the gallery's candidates, which may stand there several times, each is scored again by itself; where one that was not
    fetched could still belong to the answer, within rounding, four times as many are fetched.
    """
    answers: list[list[Place]] = [[] for _ in queries]
    waiting = list(range(len(queries))) if scope.size else []
    fetch = max((wish.k + len(wish.exclude) for wish in wishes), default=0) + _SPARE
    while waiting:
        fetch = min(fetch, scope.size)
        asked = queries[waiting]
        rough, rows = gallery.nearest(asked, fetch, scope.rows)
        scores = np.clip(gallery.scores(asked, rows), -1, 1)
        unsure = []
        for place, query in enumerate(waiting):
            wish = wishes[query]
            wanted = wish.k + len(wish.exclude) if scope.labels is None else rows.shape[1]
            found = _ordered(*_best(rows[place], scores[place], wanted), directory.ids)
            answers[query] = list(_picked(found, wish, scope.labels))
            limit = gallery.bound(float(rough[place, -1]))
            if not (fetch == scope.size or limit < wish.min_score or _is_sure(answers[query], wish.k, limit)):
                unsure.append(query)
        waiting, fetch = unsure, 4 * fetch
    return answers


def _is_sure(answer: Sequence[Place], k: int, limit: float) -> bool:
    return len(answer) == k and answer[-1].score > limit


def _best(rows: Rows, scores: Vectors, count: int) -> tuple[Rows, Vectors]:
    """Each row once: so many that have the highest scores, and those that are level with the last of them."""
    unique, first = np.unique(rows, return_index=True)
    scores = scores[first]
    if count >= len(unique):
        return unique, scores
    is_best = scores >= np.partition(scores, -count)[-count]
    return unique[is_best], scores[is_best]


def _ordered(rows: Rows, scores: Vectors, ids: Sequence[str]) -> list[Place]:
    places = (Place(row, ids[row], score) for row, score in zip(rows.tolist(), scores.tolist(), strict=True))
    return sorted(places, key=lambda place: (-place.score, place.id))


def _picked(found: Iterable[Place], wish: Wish, labels: Mapping[int, str] | None) -> Iterator[Place]:
    """The first k that may be answered, the best of each label where there are labels."""
    seen: set[str] = set()
    left = wish.k
    for place in found:
        if left == 0 or place.score < wish.min_score:
            return
        label = place.id if labels is None else labels[place.row]
        if place.id in wish.exclude or label in seen:
            continue
        seen.add(label)
        left -= 1
        yield place


_MAX_QUERIES: Final = 256
"""Of one batch: those who came later must not wait for ever more who came with them."""


@dataclass(frozen=True)
class Query:
    """Vectors (m, dim), each with what it is to be answered with, among the items that the filter holds for.

    With `group_by`, the path of a metadata field, only the best item of each of its values is answered, and items whose field
    is missing, a list or an object do not take part. Filter and field are read until `deadline`, by `time.perf_counter`.
    """

    vectors: Vectors = field(repr=False)
    wishes: Sequence[Wish]
    where: Filter | None = None
    group_by: str | None = None
    deadline: float = math.inf


@dataclass(frozen=True)
class Hit:
    """An item that a search found; `score` is the cosine, in [-1, 1]."""

    id: str
    score: float
    metadata: dict[str, Any]


Hits = list[list[Hit]]
Asked = tuple[Query, "Future[Hits]"]


@dataclass(frozen=True)
class _Room:
    """Asked for: memory for items with these ids, beside all that are there."""

    ids: Collection[str]
    made: Future[None] = field(default_factory=Future)


class _Lost(IndexProblem):
    """The rows could not follow the disk, and must not be searched any more."""


class Searcher:
    """Owns the rows of an index, as `gallery` and `directory`, in the state of `sequence`, and a reader of its file.

    `turn` is held while the processor is used, by whichever index it is: each uses `threads` of it.
    """

    def __init__(
        self,
        spec: Spec,
        reader: Reader,
        gallery: Gallery,
        directory: Directory,
        sequence: int,
        threads: int,
        turn: threading.Lock,
        name: str,
    ) -> None:
        self._spec, self._reader, self._gallery, self._directory = spec, reader, gallery, directory
        self._sequence, self._threads, self._turn = sequence, threads, turn
        self._inbox = Inbox[Asked | list[Effect] | _Room]()
        self._questions: list[Asked] = []
        self._is_open = True
        self.problem: str | None = None
        """Why nothing is searched any more, if that is so."""
        self._thread = threading.Thread(target=self._run, name=f"rankone-search-{name}", daemon=True)
        self._thread.start()

    def ask(self, query: Query) -> Future[Hits]:
        """For every vector of the query its hits, best first; costs nothing if it is cancelled before its turn."""
        future: Future[Hits] = Future()
        if not self._inbox.put((query, future)):
            future.set_exception(IndexProblem(self.problem or "the index is closed"))
        return future

    def make_room(self, count: int, ids: Collection[str]) -> None:
        """Returns when there is memory for `count` items and those with these ids, which may be among them.

        For the writer, who must not store what then cannot be searched.

        Raises:
            IndexFull: there is none.
            IndexProblem: nothing is searched any more.
        """
        fewest, most = self._gallery.span  # which changes when the writer asks for it, and not else
        if fewest <= count + len(ids) <= most:
            return
        room = _Room(ids)
        if not self._inbox.put(room):
            raise IndexProblem(self.problem or "the index is closed")
        room.made.result()

    def follow(self, effects: list[Effect]) -> None:
        """Takes note of a transaction that is on disk."""
        self._inbox.put(effects)

    def close(self) -> None:
        """Answers what waits and ends."""
        self._inbox.close()
        self._thread.join()
        self._reader.close()

    def _run(self) -> None:
        try:
            self._serve()
        except _Lost as error:
            self.problem = str(error)
            self._inbox.close()
            while self._is_open:
                self._next_effects()
            _fail(self._questions, IndexProblem(self.problem))

    def _serve(self) -> None:
        faiss.omp_set_num_threads(self._threads)  # holds for the calling thread alone
        while self._is_open or self._questions:
            if not self._questions:
                self._receive()
            while not self._inbox.empty():
                self._receive()
            if batch := self._next_batch():
                self._answer(batch)

    def _receive(self) -> None:
        """Waits for a message; a change is made at once, a question is kept."""
        if (effects := self._next_effects()) is not None:
            self._apply(effects)

    def _next_effects(self) -> list[Effect] | None:
        message = self._inbox.get()
        if message is None:
            self._is_open = False
        elif isinstance(message, list):
            return message
        elif isinstance(message, _Room):
            self._fit(message)
        else:
            self._questions.append(message)
        return None

    def _fit(self, room: _Room) -> None:
        try:
            num_new = sum(item_id not in self._directory for item_id in set(room.ids))
            self._gallery.fit(len(self._directory) + num_new)
        except (DeviceProblem, MemoryError) as error:
            room.made.set_exception(IndexFull(f"nothing of this request was stored: {error}"))
        except Exception as error:
            room.made.set_exception(error)
        else:
            room.made.set_result(None)

    def _apply(self, effects: Iterable[Effect]) -> None:
        try:
            for effect in effects:
                self._make(effect)
        except Exception as error:
            raise _Lost(
                f"the search thread failed, start the service again: {type(error).__name__}: {error}"
            ) from error

    def _make(self, effect: Effect) -> None:
        for item_id in effect.dropped:
            if (move := self._directory.remove(item_id)) is not None:
                self._gallery.move(*move)
        for number, record in zip(effect.numbers, effect.records, strict=True):
            vector = np.frombuffer(record.vector, self._spec.stored)
            self._gallery.set(self._directory.place(record.id, number), vector[None])
        self._sequence = effect.sequence

    def _next_batch(self) -> list[Asked]:
        batch: list[Asked] = []
        num_queries = 0
        while self._questions and (not batch or num_queries < _MAX_QUERIES):
            query, future = asked = self._questions.pop(0)
            if future.set_running_or_notify_cancel():  # or nobody waits for it any more
                batch.append(asked)
                num_queries += len(query.vectors)
        return batch

    def _answer(self, batch: Sequence[Asked]) -> None:
        try:
            with self._reader.snapshot() as sequence:
                while self._sequence < sequence:  # committed, and being told to us
                    self._receive()
                alike: dict[tuple[Filter | None, str | None], list[Asked]] = defaultdict(list)
                for asked in batch:
                    alike[asked[0].where, asked[0].group_by].append(asked)
                for (where, group_by), group in alike.items():
                    self._answer_alike(group, where, group_by)
        except Exception as error:
            _fail(batch, error)
            if isinstance(error, _Lost):
                raise

    def _answer_alike(self, group: Sequence[Asked], where: Filter | None, group_by: str | None) -> None:
        """Questions of the same filter, together; what is wrong with it is no fault of the others."""
        try:
            queries = as_queries([query.vectors for query, _ in group])
            wishes = [wish for query, _ in group for wish in query.wishes]
            with self._reader.reading_until(max(query.deadline for query, _ in group)):
                scope = self._scope(where, group_by)
            with self._turn:
                found = ranked(self._gallery, self._directory, queries, wishes, scope)
            answers = iter(self._with_metadata(found))
        except Exception as error:
            _fail(group, error)
            return
        for query, future in group:
            future.set_result([next(answers) for _ in query.vectors])

    def _scope(self, where: Filter | None, group_by: str | None) -> Scope:
        chosen = None if where is None else self._directory.rows_of(self._reader.sequences(where))
        if group_by is None:
            return Scope(len(self._directory) if chosen is None else chosen)
        labels = self._directory.labels(self._reader.labels(group_by))
        labelled = np.fromiter(labels, np.int64)
        return Scope(labelled if chosen is None else np.intersect1d(labelled, chosen), labels)

    def _with_metadata(self, found: Sequence[Sequence[Place]]) -> Hits:
        sequences = self._directory.sequences
        wanted = {int(sequences[place.row]) for places in found for place in places}
        metadata = {sequence: orjson.loads(text) for sequence, text in self._reader.metadata(wanted).items()}
        return [[Hit(p.id, p.score, metadata[int(sequences[p.row])]) for p in places] for places in found]


def _fail(asked: Iterable[Asked], error: Exception) -> None:
    for _, future in asked:
        if not future.done() and (future.running() or future.set_running_or_notify_cancel()):
            future.set_exception(error)
