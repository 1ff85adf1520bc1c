"""One published version of an index, and all indexes of a folder or an object store by name."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Final

import lance

from rankone.index.backend import AnyIndex, AnyIndexes
from rankone.index.cancellation import answered_by
from rankone.index.change import Change, Effect
from rankone.index.errors import IndexProblem, IndexPublished, UnknownIndex, UnknownMap
from rankone.index.lance import store
from rankone.index.lance.reader import LanceReader
from rankone.index.lance.search import search
from rankone.index.map import MapView
from rankone.index.search import Hits, Query
from rankone.index.spec import Spec

logger = logging.getLogger("rankone")

LOOK_S: Final = 10.0
"""A service looks so often for a newer published version."""
_THREADS: Final = 4


class LanceIndex(AnyIndex):
    """A published version. It stays the same; a newer one is another object."""

    backend = "lance"
    device = None
    problem = None

    def __init__(self, found: store.Published, threads: ThreadPoolExecutor) -> None:
        self.published, self._threads = found, threads
        self.spec, self.recall = found.spec, found.recall

    def __len__(self) -> int:
        return self.published.count

    def check_writable(self) -> None:
        raise IndexPublished

    def change(self, change: Change) -> Future[Effect]:  # noqa: ARG002 - none is made
        raise IndexPublished

    def submit_search(self, query: Query) -> Future[Hits]:
        return answered_by(self._threads, lambda: self.hits(query))

    def map(self, field: str | None = None) -> MapView:  # noqa: ARG002 - there is none
        raise UnknownMap(f"a published version, such as of the index {self.published.name!r}, has no map")

    def reading(self) -> AbstractContextManager[LanceReader]:
        return nullcontext(LanceReader(self.published))

    def hits(self, query: Query, depth: int | None = None) -> Hits:
        """What `ask` answers, by `depth` candidates."""
        return search(self.published, query, depth)

    def keep_recall(self, recall: float, depth: int) -> None:
        """Keeps the recall that was measured, and with how many candidates."""
        store.keep_measured(self.published, recall, depth)


class LanceIndexes(AnyIndexes):
    """Every index in a folder or under an address (s3://…), of which any number of services read the published versions.

    An index that is in use is replaced by a newer version once it has been opened; until then, and if that fails, searches see
    the version before.

    Raises:
        IndexUnavailable: the folder or the store cannot be read.
    """

    backend = "lance"

    def __init__(self, root: str) -> None:
        store.names(root)
        self._root = root
        self._session = lance.Session()  # what is cached of all indexes
        self._opened: dict[str, LanceIndex] = {}
        self._faults: dict[str, str] = {}
        self._opening, self._closing = threading.Lock(), threading.Event()
        self._threads = ThreadPoolExecutor(_THREADS, "rankone-search")
        threading.Thread(target=self._follow, name="rankone-lance-follow", daemon=True).start()

    def acquire(self, fingerprint: str, dim: int, *, thumbnails: bool = False) -> None:  # noqa: ARG002 - none is made
        for name in self.names():
            with suppress(IndexProblem):  # which `problems` names
                self.open(name)

    def names(self) -> list[str]:
        return store.names(self._root)

    def open(self, name: str, fingerprint: str | None = None) -> LanceIndex:
        """The published version that was last seen; for the errors see `AnyIndexes.open`."""
        if (index := self._opened.get(name)) is None:
            with self._opening:
                index = self._opened.get(name) or self._open(name)
        if fingerprint is not None:
            index.spec.check_model(fingerprint, name)
        return index

    def counts(self) -> dict[str, int]:
        return {name: len(self._opened[name]) if name in self._opened else 0 for name in self.names()}

    def problems(self) -> dict[str, str]:
        return dict(self._faults)

    def create(self, name: str, spec: Spec) -> bool:
        if name not in self.names():
            raise IndexPublished
        self.spec(name).check_same(spec, name)
        return False

    def drop(self, name: str) -> None:  # noqa: ARG002 - none is dropped
        raise IndexPublished

    def refresh(self) -> None:
        """Opens the published versions that are newer than those in use."""
        with self._opening:
            for name in [*self._opened, *self._faults]:
                with suppress(IndexProblem):
                    self._open(name)

    def close(self) -> None:
        self._closing.set()
        self._threads.shutdown()

    def _open(self, name: str) -> LanceIndex:
        try:
            found = store.published(self._root, name, self._session)
        except UnknownIndex:
            self._faults.pop(name, None)
            self._opened.pop(name, None)
            raise
        except IndexProblem as problem:
            self._faults[name] = str(problem)
            raise
        self._faults.pop(name, None)
        if (index := self._opened.get(name)) is None or index.published != found:
            index = self._opened[name] = LanceIndex(found, self._threads)
            logger.info("the index %r is read in version %d, of %s items", name, found.version, f"{found.count:,}")
        return index

    def _follow(self) -> None:
        while not self._closing.wait(LOOK_S):
            self.refresh()
