"""The index: every change goes to disk first, then to memory, and every search sees all that was acknowledged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Final

import faiss
import numpy as np

from rankone.index.compact import CompactGallery
from rankone.index.database import SearchDevice, Spec
from rankone.index.device import check_device
from rankone.index.errors import DeviceProblem, IndexConflict, IndexDamaged, IndexProblem, UnknownItem
from rankone.index.exact import ExactGallery
from rankone.index.filters import Filter
from rankone.index.gallery import Gallery, RowTable, Vectors
from rankone.index.items import Item, Reader, Readers, Record, record_of
from rankone.index.map import MapView, read_map, values_of
from rankone.index.patches import Patch
from rankone.index.search import SearchOptions
from rankone.index.search_thread import Hits, Query, SearchThread
from rankone.index.store import Change, Effect, Store
from rankone.index.writer import Writer

_TILE: Final = 256
"""Rows that are loaded at once."""


class Index:
    """The items in a file, searched. Safe to call from any thread.

    One thread commits waiting changes, another answers searches. `submit`, `submit_delete` and `ask` return at once, all other
    methods wait. `num_threads` of the processor search; `turn` is held while they do. Reads of items are `cancellable`.

    Raises:
        IndexDamaged: the file is not an index, or is damaged.
        IndexProblem: it cannot be opened, or not be searched on `device`.
    """

    def __init__(
        self, path: Path, num_threads: int = 1, turn: Lock | None = None, device: SearchDevice = "cpu"
    ) -> None:
        with ExitStack() as opened:
            self._store = Store(path)
            opened.callback(self._store.close)
            self.spec, self.path, self.recall = self._store.spec, path, self._store.recall
            """`recall` is the share of the 10 nearest found when it was last measured (`rankone index check`)."""
            self.device: SearchDevice = "cpu" if self.spec.kind == "compact" else device
            reader, table = Reader(path), RowTable()
            opened.callback(reader.close)
            gallery = _gallery(self.spec, self.device, table, reader)
            sequence, self._damaged = _load(reader, self.spec, gallery, table, num_threads)
            opened.pop_all()
        self._readers = Readers(path)
        self._searching = SearchThread(self.spec, reader, gallery, table, sequence, num_threads, turn or Lock())
        self._writer = Writer(self._store, self._reserve, self._publish, path.stem)

    def __len__(self) -> int:
        return self._store.count - len(self._damaged)

    @property
    def problem(self) -> str | None:
        """Why nothing is stored or searched any more, or which items are damaged on disk; None if all is well."""
        if (failed := self._writer.problem or self._searching.problem) is not None:
            return failed
        if not self._damaged:
            return None
        some = ", ".join(sorted(self._damaged)[:5])
        return f"{len(self._damaged)} items are damaged on disk and left out: {some}. Add them again, or delete them"

    def close(self) -> None:
        """Stores and answers what waits, then closes the file. The index must not be used any more."""
        self._writer.close()
        self._searching.close()
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
        return self._writer.submit(Change([record_of(item, self.spec) for item in items]))

    def put(self, items: Sequence[Item]) -> int:
        """Adds or replaces items, all or none; returns their last sequence number once they are on disk.

        Raises:
            IndexConflict: two of the items have the same id.
            IndexFull: there is no room on the disk, or in the memory that is searched.
            IndexReadOnly: the disk failed, now or before.
        """
        return self.submit(items).result().sequence

    def submit_patch(self, patch: Patch) -> Future[Effect]:
        """Changes the metadata of an item; done when that is on disk. For the errors see `Patch.apply` and `get`."""
        return self._writer.submit(Change(patches=[patch]))

    def submit_delete(self, ids: Sequence[str] = (), where: Filter | None = None) -> Future[Effect]:
        """Removes the items that have one of these ids or match the filter. The future is done when they are off the disk."""
        return self._writer.submit(Change(ids=ids, where=where))

    def delete(self, ids: Sequence[str] = (), where: Filter | None = None) -> int:
        """Removes items; returns their number once that is on disk. For the errors see `put`."""
        return len(self.submit_delete(ids, where).result().removed)

    def ask(self, query: Query) -> Future[Hits]:
        """For every vector of the query its hits, best first. Cancelling the future ends the search."""
        return self._searching.ask(query)

    def search(self, queries: Vectors, k: int, min_score: float | None = None, where: Filter | None = None) -> Hits:
        """For every query (m, dim) the k nearest items by cosine, best first, from `min_score` on."""
        options = SearchOptions(k, -np.inf if min_score is None else min_score)
        return self.ask(Query(queries, [options] * len(queries), where)).result()

    def get(self, item_id: str) -> Item:
        """The item with this id.

        Raises:
            UnknownItem: there is none.
            IndexDamaged: it is damaged on disk.
        """
        return self._items([item_id])[0]

    def holds(self, item: Item) -> bool:
        """Whether the item is stored with the same content. If `item` has no thumbnail, any thumbnail will do."""
        with self._readers.borrow() as reader:
            found = reader.records([item.id]).get(item.id)
        return found is not None and found == record_of(
            replace(item, thumbnail=item.thumbnail or found.thumbnail), self.spec
        )

    def page(self, limit: int, after: int = 0, where: Filter | None = None) -> list[tuple[int, Item]]:
        """Up to `limit` items after sequence number `after`, each with its number, in the order they were added."""
        found: list[tuple[int, Item]] = []
        with self._readers.borrow() as reader:
            while len(found) < limit and (rows := reader.page(limit - len(found), after, where)):
                found += [(number, record.item(self.spec)) for number, record in rows if record.is_intact]
                after = rows[-1][0]
        return found

    def map(self, field: str | None = None) -> MapView:
        """The map beside the index; for the errors see `read_map` and `values_of`.

        Args:
            field: of the metadata, whose value now is wanted for each point.
        """
        with self._readers.borrow() as reader, reader.snapshot() as about:
            made = read_map(self.path, self.spec, about.sequence)
            values = None if field is None else values_of(reader, made, field)
            return MapView(made, is_current=made.sequence == about.sequence, values=values)

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """The vectors (n, dim) of these items; for the errors see `get`."""
        return np.stack([item.vector for item in self._items(ids)]).astype(np.float32)

    def direction(self, positive: Sequence[str], negative: Sequence[str] = ()) -> Vectors:
        """A query (1, dim) of length 1 for more like some items and less like others; for the errors see `get`.

        Twice the mean of the first, less the mean of the others (Rocchio). It is zero only if all of them are, as no mean is
        longer than 1.
        """
        towards = 2 * self.vectors(positive).mean(axis=0)
        if negative:
            towards -= self.vectors(negative).mean(axis=0)
        return np.asarray(towards / max(float(np.linalg.norm(towards)), 1e-12), np.float32)[None]

    def _items(self, ids: Sequence[str]) -> list[Item]:
        with self._readers.borrow() as reader:
            found = reader.records(ids)
        for item_id in ids:
            if item_id not in found:
                raise UnknownItem(f"there is no item {item_id!r}")
            if not found[item_id].is_intact:
                raise IndexDamaged(f"the item {item_id!r} is damaged on disk: add it again, or restore a backup")
        return [found[item_id].item(self.spec) for item_id in ids]

    def _reserve(self, records: Sequence[Record]) -> None:
        self._searching.reserve(len(self), [record.id for record in records])

    def _publish(self, effects: list[Effect]) -> None:
        for effect in effects:
            self._damaged.difference_update(effect.removed, (record.id for record in effect.records))
        self._searching.follow(effects)


def _gallery(spec: Spec, device: SearchDevice, table: RowTable, reader: Reader) -> Gallery:
    if spec.kind == "compact":
        return CompactGallery(spec.dim, table, reader.vectors, spec.stored)
    if device == "cuda":
        check_device(device)
        from rankone.index.gpu import GpuGallery  # torch, which a service on the CPU does without

        return GpuGallery(spec.dim, spec.stored)
    return ExactGallery(spec.dim)


def _load(reader: Reader, spec: Spec, gallery: Gallery, table: RowTable, num_threads: int) -> tuple[int, set[str]]:
    """Reads every row into memory but those with a wrong checksum; returns the sequence number and the ids left out.

    Every page is checked first: in a damaged tree, rows can be missing without an error.

    Raises:
        IndexDamaged: the file is damaged.
        DeviceProblem: the device cannot hold the rows.
    """
    damaged, num_rows, number = set[str](), 0, 0
    num_threads_before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(num_threads)  # holds for the calling thread alone
    try:
        with reader.snapshot() as about:
            reader.check_file()
            rows = reader.everything()
            while tile := list(islice(rows, _TILE)):
                num_rows, number, start, vectors = num_rows + len(tile), tile[-1][0], len(table), list[bytes]()
                for sequence, record in tile:
                    if record.is_intact and len(record.vector) == spec.dim * spec.stored.itemsize:
                        table.add(record.id, sequence)
                        vectors.append(record.vector)
                    else:
                        damaged.add(str(record.id))
                assert len(table) == start + len(vectors)  # ids are unique in a file whose pages are in order
                gallery.write(start, np.frombuffer(b"".join(vectors), spec.stored).reshape(-1, spec.dim))
            if num_rows != reader.count() or number > about.sequence:
                raise IndexDamaged(f"{reader.path}: its items are not those it counts; restore it from a backup")
    except (IndexDamaged, DeviceProblem):
        raise
    except IndexProblem as error:
        raise IndexDamaged(f"{reader.path} is damaged: {error}") from error
    finally:
        faiss.omp_set_num_threads(num_threads_before)
    return about.sequence, damaged
