"""The index: every change goes to disk first, then to memory; every search sees all that was acknowledged."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from service.index.errors import IndexConflict, UnknownItem
from service.index.rows import Rows
from service.index.store import VECTOR_TYPE, Item, Store


@dataclass(frozen=True)
class Hit:
    """An item that a search found; `score` is the cosine, in [-1, 1]."""

    id: str
    score: float
    metadata: dict[str, Any]


class Index:
    """Items made with one bundle. Safe to call from any thread; one call at a time runs.

    Raises:
        IndexConflict: the file at `path` was made with another bundle.
    """

    def __init__(self, path: Path, fingerprint: str, dim: int, threads: int = 1) -> None:
        self._lock = threading.Lock()
        self._store = Store(path, fingerprint, dim)
        self._rows = Rows(dim, threads)
        self._rows.put(*self._store.all_vectors())

    def __len__(self) -> int:
        return len(self._rows)

    def close(self) -> None:
        """Lets go of the file; the index is not to be used any more."""
        with self._lock:
            self._store.close()

    def put(self, items: Sequence[Item]) -> int:
        """Adds or replaces items, all or none; returns their last sequence number once they are on disk.

        Raises:
            IndexConflict: two of the items have the same id.
            IndexFull: there is no room on the disk.
        """
        ids = [item.id for item in items]
        item_id, count = Counter(ids).most_common(1)[0]
        if count > 1:
            raise IndexConflict(f"the id {item_id!r} stands {count} times in this request")
        with self._lock:
            self._rows.reserve(len(items))
            sequence = self._store.put(items)
            # memory holds what the disk holds, float16, so that a restart changes no score
            self._rows.put(ids, np.stack([item.vector for item in items]).astype(VECTOR_TYPE))
            return sequence

    def delete(self, ids: Sequence[str]) -> int:
        """Removes items; returns, once that is on disk, how many there were."""
        with self._lock:
            deleted = self._store.delete(ids)
            self._rows.drop(ids)
            return deleted

    def get(self, item_id: str) -> Item:
        """The item with this id.

        Raises:
            UnknownItem: there is none.
        """
        with self._lock:
            return self._known([item_id])[0]

    def page(self, limit: int, after: int = 0) -> list[tuple[int, Item]]:
        """Up to `limit` items after sequence number `after`, each with its number, in the order they were added."""
        with self._lock:
            return self._store.page(limit, after)

    def vectors(self, ids: Sequence[str]) -> npt.NDArray[np.float32]:
        """The vectors (n, dim) of these items.

        Raises:
            UnknownItem: one of them is not there.
        """
        with self._lock:
            return np.stack([item.vector for item in self._known(ids)]).astype(np.float32)

    def search(self, queries: npt.NDArray[np.float32], k: int, min_score: float | None = None) -> list[list[Hit]]:
        """For every query (m, dim), the k nearest items by cosine, best first; only those from `min_score` on, if given."""
        with self._lock:
            found = self._rows.search(queries, k)
            metadata = self._store.metadata({item_id for hits in found for item_id, _ in hits})
        return [
            [
                Hit(item_id, max(-1.0, min(1.0, score)), metadata[item_id])
                for item_id, score in hits
                if min_score is None or score >= min_score
            ]
            for hits in found
        ]

    def _known(self, ids: Sequence[str]) -> list[Item]:
        found = self._store.get(ids)
        for item_id in ids:
            if item_id not in found:
                raise UnknownItem(f"there is no item {item_id!r}")
        return [found[item_id] for item_id in ids]
