"""What every index can do, wherever it is kept: in files beside the service (`local`), in PostgreSQL (`postgres`), or in
published versions that are only read (`lance`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Literal

import numpy as np

from rankone.index.change import Change, Effect, Patch
from rankone.index.errors import IndexConflict, IndexDamaged, UnknownItem
from rankone.index.filters import Filter
from rankone.index.gallery import Vectors
from rankone.index.items import Item, Record, Row, Summary, record_of
from rankone.index.map import MapView
from rankone.index.search import Hits, Query, SearchOptions
from rankone.index.spec import About, SearchDevice, Spec

Backend = Literal["local", "postgres", "lance"]


class AnyReader(ABC):
    """Reads one state of an index. Every method raises IndexProblem if the index cannot be read."""

    @abstractmethod
    def about(self) -> About:
        """What the index is, and its last change."""

    @abstractmethod
    def check(self) -> None:
        """Checks what holds the records, but not the records. Raises IndexDamaged."""

    @abstractmethod
    def count(self) -> int:
        """The number of items."""

    @abstractmethod
    def summaries(self) -> Iterator[Summary]:
        """Every item in order, without its vector."""

    @abstractmethod
    def records(self, ids: Iterable[str]) -> dict[str, Record]:
        """The records with these ids; ids that are not in the index are left out."""

    @abstractmethod
    def page(self, limit: int, after: int, where: Filter | None = None) -> list[Row]:
        """Up to `limit` records after sequence number `after` that match the filter, in order."""

    @abstractmethod
    def everything(self) -> Iterator[Row]:
        """All records in order, one at a time."""

    @abstractmethod
    def at(self, sequences: Sequence[int]) -> Iterator[Row]:
        """The records with these sequence numbers, in order."""


class AnyIndex(ABC):
    """The items of one model, searched. Safe to call from any thread.

    `submit` and every `submit_…` return at once, all other methods wait. What is acknowledged is on disk,
    and every later search sees it. Reads of items are `cancellable`.
    """

    backend: Backend
    spec: Spec
    device: SearchDevice | None
    """Where it is searched; None if not in this process."""

    recall: float | None
    """The share of the 10 nearest found when it was last measured (`rankone index check`)."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of items."""

    @property
    @abstractmethod
    def problem(self) -> str | None:
        """Why nothing is stored or searched any more, what was lost, which items are damaged; None if all is well."""

    def check_writable(self) -> None:  # noqa: B027 - most are
        """Raises IndexPublished if nothing is ever stored in this index, before a request is worked on in vain."""

    @abstractmethod
    def change(self, change: Change) -> Future[Effect]:
        """Makes a change, all of it or nothing; done when it is on disk.

        Raises:
            IndexFull: there is no room on the disk, or in the memory that is searched.
            IndexReadOnly: the disk failed, now or before.
            UnknownItem, MetadataTooLong: of a patch.
            IndexPublished: nothing is ever stored in it.
        """

    @abstractmethod
    def submit_search(self, query: Query) -> Future[Hits]:
        """For every vector of the query its hits, best first. Cancelling the future ends the search."""

    @abstractmethod
    def reading(self) -> AbstractContextManager[AnyReader]:
        """A reader of the index for this thread, until the block ends. Raises UnknownIndex if it has been dropped."""

    @abstractmethod
    def map(self, field: str | None = None) -> MapView:
        """The map that was made of the index; for the errors see `rankone.index.map`.

        Args:
            field: of the metadata, whose value now is wanted for each point.
        """

    def close(self) -> None:  # noqa: B027 - in most backends, what is open belongs to all indexes
        """Ends what it has begun. It must not be used any more."""

    def submit(self, items: Sequence[Item]) -> Future[Effect]:
        """Adds or replaces items, all or none; done when they are on disk.

        Raises:
            IndexConflict: two of the items have the same id.
        """
        item_id, count = Counter(item.id for item in items).most_common(1)[0]
        if count > 1:
            raise IndexConflict(f"the id {item_id!r} stands {count} times in this request")
        return self.change(Change([record_of(item, self.spec) for item in items]))

    def put(self, items: Sequence[Item]) -> int:
        """Adds or replaces items, all or none; returns their last sequence number once they are on disk.

        Raises:
            IndexConflict: two of the items have the same id.
            IndexFull, IndexReadOnly: see `change`.
        """
        return self.submit(items).result().sequence

    def submit_patch(self, patch: Patch) -> Future[Effect]:
        """Changes the metadata of an item; done when that is on disk. For the errors see `Patch.apply` and `get`."""
        return self.change(Change(patches=[patch]))

    def submit_delete(self, ids: Sequence[str] = (), where: Filter | None = None) -> Future[Effect]:
        """Removes the items that have one of these ids or match the filter. The future is done when they are off the disk."""
        return self.change(Change(ids=ids, where=where))

    def delete(self, ids: Sequence[str] = (), where: Filter | None = None) -> int:
        """Removes items; returns their number once that is on disk. For the errors see `change`."""
        return len(self.submit_delete(ids, where).result().removed)

    def search(self, queries: Vectors, k: int, min_score: float | None = None, where: Filter | None = None) -> Hits:
        """For every query (m, dim) the k nearest items by cosine, best first, from `min_score` on."""
        options = SearchOptions(k, -np.inf if min_score is None else min_score)
        return self.submit_search(Query(queries, [options] * len(queries), where)).result()

    def get(self, item_id: str) -> Item:
        """The item with this id.

        Raises:
            UnknownItem: there is none.
            IndexDamaged: it is damaged on disk.
        """
        return self._items([item_id])[0]

    def records(self, ids: Iterable[str]) -> dict[str, Record]:
        """The records with these ids; ids that are not in the index are left out."""
        with self.reading() as reader:
            return reader.records(ids)

    def missing(self, items: Sequence[Item]) -> list[Item]:
        """The items that are not stored, or with other content. An item without a thumbnail equals one that has any."""
        found = self.records(item.id for item in items)

        def is_stored(item: Item) -> bool:
            record = found.get(item.id)
            return record is not None and record == record_of(
                replace(item, thumbnail=item.thumbnail or record.thumbnail), self.spec
            )

        return [item for item in items if not is_stored(item)]

    def page(self, limit: int, after: int = 0, where: Filter | None = None) -> list[tuple[int, Item]]:
        """Up to `limit` items after sequence number `after`, each with its number, in the order they were added."""
        found: list[tuple[int, Item]] = []
        with self.reading() as reader:
            while len(found) < limit and (rows := reader.page(limit - len(found), after, where)):
                found += [(number, record.item(self.spec)) for number, record in rows if record.is_intact]
                after = rows[-1][0]
        return found

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
        found = self.records(ids)
        for item_id in ids:
            if item_id not in found:
                raise UnknownItem(f"there is no item {item_id!r}")
            if not found[item_id].is_intact:
                raise IndexDamaged(f"the item {item_id!r} is damaged on disk: add it again, or restore a backup")
        return [found[item_id].item(self.spec) for item_id in ids]


class AnyIndexes(ABC):
    """All indexes of a place, by name. Safe to call from any thread; every method may wait for a disk or a database."""

    backend: Backend

    @abstractmethod
    def acquire(self, fingerprint: str, dim: int, *, thumbnails: bool = False) -> None:
        """Makes the indexes of a model ready, until `release`.

        Makes the index `default` if there is none, with `thumbnails` or without, or raises IndexProblem.
        """

    def release(self, fingerprint: str) -> None:  # noqa: B027 - most keep nothing open for a model
        """Lets go of the indexes of a model once it has been released as often as it was acquired."""

    @abstractmethod
    def names(self) -> list[str]:
        """The names of all indexes, also of unusable ones."""

    def spec(self, name: str) -> Spec:
        """What the index is; for the errors see `open`."""
        return self.open(name).spec

    @abstractmethod
    def open(self, name: str, fingerprint: str | None = None) -> AnyIndex:
        """The index.

        Raises:
            UnknownIndex: there is none of that name.
            IndexProblem: it cannot be read.
            IndexConflict: it was made with another model than `fingerprint`, if that is given.
        """

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """The number of items of each index; 0 for an index that is not open."""

    def count(self, name: str) -> int:
        """The number of items of one index; 0 if it is not in use, or there is none of that name."""
        return self.counts().get(name, 0)

    @abstractmethod
    def problems(self) -> dict[str, str]:
        """The faults of indexes that cannot be used or written, by name."""

    @abstractmethod
    def create(self, name: str, spec: Spec) -> bool:
        """Makes an index, which is on disk on return; False if the same index exists already.

        Raises:
            IndexConflict: it exists with other options.
            IndexProblem: the name is not allowed, or the index cannot be made.
        """

    @abstractmethod
    def drop(self, name: str) -> None:
        """Removes an index with all its items; it is gone from disk on return. For the errors see `spec`."""

    @abstractmethod
    def close(self) -> None:
        """Closes every index."""
