"""The index: every change goes to disk first, then to memory; every search sees all that was acknowledged."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import compress, islice
from pathlib import Path
from typing import Final

import faiss
import numpy as np

from rankone.index.compact import Codes
from rankone.index.database import Device, Spec
from rankone.index.errors import DeviceProblem, IndexConflict, IndexDamaged, IndexProblem, UnknownItem
from rankone.index.exact import Matrix
from rankone.index.filters import Filter
from rankone.index.gallery import Directory, Gallery, Vectors, check_device, searched_on
from rankone.index.items import Item, Reader, Readers, Record, Row, record_of
from rankone.index.search import Hits, Query, Searcher, Wish
from rankone.index.writer import Delete, Effect, Put, Store, Writer

_TILE: Final = 256
"""Rows at a time."""


@dataclass(frozen=True)
class Loaded:
    """What is searched, in the state of `sequence`, without the rows whose checksum is not that of their content."""

    gallery: Gallery
    directory: Directory
    sequence: int
    damaged: frozenset[str]


def load(reader: Reader, spec: Spec, path: Path, threads: int, device: Device = "cpu") -> Loaded:
    """Reads every row, after a look at every page: where the file's own order is lost, rows are missing and nobody is told.

    `threads` of the processor convert vectors.

    Raises:
        IndexDamaged: the file is not whole.
        DeviceProblem: the device cannot be had, or cannot hold the rows.
    """
    directory, damaged = Directory(), set[str]()
    gallery = _gallery(reader, spec, directory, device)
    num_rows, number = 0, 0
    try:
        with reader.snapshot() as sequence, _threads(threads):
            reader.check_file()
            for rows in _tiles(reader.everything()):
                num_rows, number = num_rows + len(rows), rows[-1][0]
                is_whole = [_is_whole(record, spec) for _, record in rows]
                _place(list(compress(rows, is_whole)), spec, gallery, directory)
                damaged |= {str(record.id) for (_, record), whole in zip(rows, is_whole, strict=True) if not whole}
            if num_rows != reader.count() or number > sequence:
                raise IndexDamaged(f"{path} is damaged: its items are not those it counts; restore it from a backup")
    except (IndexDamaged, DeviceProblem):
        raise
    except IndexProblem as error:
        raise IndexDamaged(f"{path} is damaged: {error}") from error
    return Loaded(gallery, directory, sequence, frozenset(damaged))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Faiss uses so many; it is set for the calling thread alone."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _tiles(rows: Iterator[Row]) -> Iterator[list[Row]]:
    return iter(lambda: list(islice(rows, _TILE)), [])


def _is_whole(record: Record, spec: Spec) -> bool:
    return record.is_whole and len(record.vector) == spec.dim * spec.stored.itemsize


def _place(rows: Sequence[Row], spec: Spec, gallery: Gallery, directory: Directory) -> None:
    start = len(directory)
    for number, record in rows:
        directory.place(record.id, number)
    assert len(directory) == start + len(rows)  # no id is there twice: every page has been looked at
    vectors = np.frombuffer(b"".join(record.vector for _, record in rows), spec.stored)
    gallery.set(start, vectors.reshape(len(rows), spec.dim))


def _gallery(reader: Reader, spec: Spec, directory: Directory, device: Device) -> Gallery:
    if spec.kind == "compact":
        return Codes(spec.dim, directory, reader.vectors, spec.stored)
    if device == "cpu":
        return Matrix(spec.dim)
    check_device(device)
    from rankone.index.gpu import GpuMatrix

    return GpuMatrix(spec.dim, spec.stored)


class Index:
    """The items in a file, searched. Safe to call from any thread.

    A writer thread commits what waits; a search thread follows it. `submit_…` and `ask` return at once; the others wait.

    Raises:
        IndexDamaged: the file is no index, or not whole.
        IndexProblem: it cannot be opened, or not be searched on `device`.
    """

    def __init__(
        self, path: Path, threads: int = 1, turn: threading.Lock | None = None, device: Device = "cpu"
    ) -> None:
        store = Store(path)
        self.spec, self.path, self.device = store.spec, path, searched_on(store.spec, device)
        with ExitStack() as opened:
            opened.callback(store.close)
            reader = Reader(path)
            opened.callback(reader.close)
            loaded = load(reader, store.spec, path, threads, device)
            opened.pop_all()
        self._store, self._damaged = store, set(loaded.damaged)
        self._readers = Readers(path)
        self._searcher = Searcher(
            store.spec,
            reader,
            loaded.gallery,
            loaded.directory,
            loaded.sequence,
            threads,
            turn or threading.Lock(),
            path.stem,
        )
        self._writer = Writer(store, self._make_room, self._follow, path.stem)

    def __len__(self) -> int:
        return self._store.count - len(self._damaged)

    @property
    def recall(self) -> float | None:
        """Of the 10 nearest, by what part the compact search found them when it was last measured (`rankone index check`)."""
        return self._store.recall

    @property
    def problem(self) -> str | None:
        """What an operator must know: that nothing is stored any more, or which items were found damaged on disk."""
        if (failed := self._writer.problem or self._searcher.problem) is not None:
            return failed
        if not self._damaged:
            return None
        some = ", ".join(sorted(self._damaged)[:5])
        return f"{len(self._damaged)} items are damaged on disk and left out: {some}. Add them again, or delete them"

    def close(self) -> None:
        """Stores and answers what waits, then lets go of the file; the index is not to be used any more."""
        self._writer.close()
        self._searcher.close()
        self._readers.close()
        self._store.close()

    def submit(self, items: Sequence[Item]) -> Future[Effect]:
        """Adds or replaces items, all or none; done when they are on disk.

        Raises:
            IndexConflict: two of the items have the same id.
        """
        item_id, count = Counter(item.id for item in items).most_common(1)[0]
        if count > 1:
            raise IndexConflict(f"the id {item_id!r} stands {count} times in this request")
        return self._writer.submit(Put([record_of(item, self.spec) for item in items]))

    def put(self, items: Sequence[Item]) -> int:
        """Adds or replaces items, all or none; returns their last sequence number once they are on disk.

        Raises:
            IndexConflict: two of the items have the same id.
            IndexFull: there is no room on the disk, or in the memory where it is searched.
            IndexReadOnly: the disk failed, now or before.
        """
        return self.submit(items).result().sequence

    def submit_delete(self, ids: Sequence[str] = (), where: Filter | None = None) -> Future[Effect]:
        """Removes the items with these ids, or those that the filter holds for; done when that is on disk."""
        return self._writer.submit(Delete(ids, where))

    def delete(self, ids: Sequence[str] = (), where: Filter | None = None) -> int:
        """Removes items; returns, once that is on disk, how many there were. For the errors see `put`."""
        return len(self.submit_delete(ids, where).result().dropped)

    def ask(self, query: Query) -> Future[Hits]:
        """For every vector of the query its hits, best first; costs nothing if it is cancelled before its turn."""
        return self._searcher.ask(query)

    def search(self, queries: Vectors, k: int, min_score: float | None = None, where: Filter | None = None) -> Hits:
        """For every query (m, dim), the k nearest items by cosine, best first; only those from `min_score` on, if given."""
        wish = Wish(k, -np.inf if min_score is None else min_score)
        return self.ask(Query(queries, [wish] * len(queries), where)).result()

    def get(self, item_id: str) -> Item:
        """The item with this id.

        Raises:
            UnknownItem: there is none.
            IndexDamaged: it is not whole on disk.
        """
        return self._known([item_id])[0]

    def holds(self, item: Item) -> bool:
        """Whether the item is there with the same content, its thumbnail aside."""
        with self._readers.borrow() as reader:
            found = reader.records([item.id]).get(item.id)
        wanted = record_of(item, self.spec)
        return found is not None and replace(found, thumbnail=None, checksum=b"") == replace(wanted, checksum=b"")

    def page(self, limit: int, after: int = 0, where: Filter | None = None) -> list[tuple[int, Item]]:
        """Up to `limit` items after sequence number `after`, each with its number, in the order they were added."""
        found: list[tuple[int, Item]] = []
        with self._readers.borrow() as reader:
            while len(found) < limit and (rows := reader.page(limit - len(found), after, where)):
                found += [(number, record.item(self.spec)) for number, record in rows if record.is_whole]
                after = rows[-1][0]
        return found

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """The vectors (n, dim) of these items; for the errors see `get`."""
        return np.stack([item.vector for item in self._known(ids)]).astype(np.float32)

    def direction(self, positive: Sequence[str], negative: Sequence[str] = ()) -> Vectors:
        """Where to look for more like some items and less like others: (1, dim), of length 1.

        Twice the mean of the first, less that of the others (Rocchio): never zero, as neither mean is longer than 1, unless all
        are. For the errors see `get`.
        """
        towards = 2 * self.vectors(positive).mean(axis=0)
        if negative:
            towards -= self.vectors(negative).mean(axis=0)
        return np.asarray(towards / max(float(np.linalg.norm(towards)), 1e-12), np.float32)[None]

    def _known(self, ids: Sequence[str]) -> list[Item]:
        with self._readers.borrow() as reader:
            found = reader.records(ids)
        return [self._whole(found.get(item_id), item_id) for item_id in ids]

    def _whole(self, record: Record | None, item_id: str) -> Item:
        if record is None:
            raise UnknownItem(f"there is no item {item_id!r}")
        if not record.is_whole:
            raise IndexDamaged(f"the item {item_id!r} is damaged on disk: add it again, or restore a backup")
        return record.item(self.spec)

    def _make_room(self, records: Sequence[Record]) -> None:
        self._searcher.make_room(len(self), [record.id for record in records])

    def _follow(self, effects: list[Effect]) -> None:
        """Between the disk and the answer: what is stored is searched."""
        for effect in effects:
            self._damaged.difference_update(effect.dropped, (record.id for record in effect.records))
        self._searcher.follow(effects)
