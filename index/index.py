"""The index in a file: every change goes to disk first, then to memory, and a search sees all that was acknowledged."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from threading import Lock

from rankone.index.backend import AnyIndex
from rankone.index.ballast import Ballast
from rankone.index.change import Change, Effect
from rankone.index.compact import CompactGallery
from rankone.index.database import map_file
from rankone.index.errors import UnknownMap
from rankone.index.exact import ExactGallery
from rankone.index.filters import path_of
from rankone.index.gallery import Gallery, RowTable
from rankone.index.items import Record
from rankone.index.loading import ReadAhead, load
from rankone.index.loss import outstanding
from rankone.index.map import MapView, view_of
from rankone.index.reader import Reader, Readers
from rankone.index.search import Hits, Query
from rankone.index.search_thread import SearchThread
from rankone.index.spec import SearchDevice, Spec, check_device
from rankone.index.store import Store
from rankone.index.writer import Writer


class Index(AnyIndex):
    """The items in a file. One thread commits waiting changes, another answers searches.

    `num_threads` of the processor search; `turn` is held while they do. On a full disk, deletions take the room that `ballast`
    keeps.

    Raises:
        IndexDamaged: the file is not an index, or is damaged.
        IndexFull: the disk is full.
        IndexUnavailable: the disk failed, or the file cannot be opened.
        IndexProblem: another version made it, or it cannot be searched on `device`.
    """

    backend = "local"

    def __init__(
        self,
        path: Path,
        num_threads: int = 1,
        turn: Lock | None = None,
        device: SearchDevice = "cpu",
        ballast: Ballast | None = None,
    ) -> None:
        with ExitStack() as opened:
            self._ahead = ReadAhead(path)
            opened.callback(self._ahead.close)
            self._store = Store(path)
            opened.callback(self._store.close)
            self.spec, self.path, self.recall = self._store.spec, path, self._store.recall
            self.device = "cpu" if self.spec.kind == "compact" else device
            reader, table = Reader(path), RowTable()
            opened.callback(reader.close)
            gallery = _gallery(self.spec, device, table, reader)
            sequence, self._damaged = load(reader, self.spec, gallery, table, num_threads)
            self._ahead.stop()
            opened.pop_all()
        self._readers = Readers(path)
        self._searching = SearchThread(self.spec, reader, gallery, table, sequence, num_threads, turn or Lock())
        self._writer = Writer(self._store, self._reserve, self._publish, ballast or Ballast(path.parent, 0), path.stem)

    def __len__(self) -> int:
        return self._store.count - len(self._damaged)

    @property
    def problem(self) -> str | None:
        if (failed := self._writer.problem or self._searching.problem) is not None:
            return failed
        found = [lost] if (lost := outstanding(self.path)) is not None else []
        if self._damaged:
            some = ", ".join(sorted(self._damaged)[:5])
            found.append(
                f"{len(self._damaged)} items are damaged on disk and left out: {some}. Add them again, or delete them"
            )
        return "; ".join(found) or None

    def close(self) -> None:
        """Stores and answers what waits, then closes the file. The index must not be used any more."""
        self._writer.close()
        self._searching.close()
        self._readers.close()
        self._store.close()
        self._ahead.close()

    def change(self, change: Change) -> Future[Effect]:
        return self._writer.submit(change)

    def submit_search(self, query: Query) -> Future[Hits]:
        return self._searching.submit_search(query)

    def reading(self) -> AbstractContextManager[Reader]:
        return self._readers.borrow()

    def map(self, field: str | None = None) -> MapView:
        name = self.path.stem
        make = f"`rankone index map FOLDER {name}`, where FOLDER is the service's --data,"
        try:
            kept = map_file(self.path).read_bytes()
        except FileNotFoundError:
            kept = None
        except OSError as error:
            raise UnknownMap(
                f"the map of the index {name!r} cannot be read ({error}): {make} makes it again"
            ) from error
        with self._readers.borrow() as reader, reader.snapshot() as about:
            look_up = None if field is None else partial(reader.values, path_of(field))
            return view_of(kept, name, make, about, look_up)

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
