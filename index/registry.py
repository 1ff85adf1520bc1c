"""The indexes of a folder as one model can use them."""

from __future__ import annotations

import re
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rankone.index.database import (
    PARTIAL,
    SUFFIX,
    Device,
    Dtype,
    FolderLock,
    Kind,
    Spec,
    make,
    open_reader,
    read_about,
    spec_of,
    wal_files,
)
from rankone.index.errors import IndexConflict, IndexProblem, UnknownIndex
from rankone.index.gallery import check_device
from rankone.index.index import Index
from rankone.index.migration import migrate
from rankone.model.files import sync

DEFAULT: Final = "default"
NAME: Final = r"[a-z0-9][a-z0-9_-]{0,63}"


def check_name(name: str) -> None:
    """Raises IndexProblem where no index can be called so."""
    if not re.fullmatch(NAME, name):
        raise IndexProblem(f"{name!r} cannot name an index: up to 64 of a-z, 0-9, - and _, none of the last two first")


class Indexes:
    """Every index in `folder`, which no other process can open meanwhile.

    One that cannot be read is named with the reason, and the others work. One of a model that nobody has acquired lies closed.
    Exact ones are searched on `device`, compact ones on the CPU. Safe to call from any thread; an open index is found without
    waiting for one that is being opened, made or dropped.

    Raises:
        IndexProblem: another process has the folder, it cannot be written, or the device cannot be had.
    """

    def __init__(self, folder: Path, threads: int = 1, device: Device = "cpu") -> None:
        check_device(device)
        self._folder, self._threads, self._device = folder, threads, device
        self._turn = threading.Lock()
        # the first is held for as long as indexes are read from disk, which may take minutes, and is taken before the second
        self._opening, self._making = threading.RLock(), threading.Lock()
        self._users = Counter[str]()
        self._open: dict[str, Index] = {}
        self._specs: dict[str, Spec] = {}
        self._broken: dict[str, IndexProblem] = {}
        self._is_closed = False
        self._folder_lock = FolderLock(folder)
        for leftover in folder.glob(f".*{PARTIAL}*"):
            leftover.unlink()
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            self._look_at(path.stem)

    def acquire(self, fingerprint: str, dim: int) -> None:
        """Opens the indexes of the model `fingerprint` until it is `release`d; `default` is made where there is none.

        Raises:
            IndexProblem: it cannot be made.
        """
        with self._opening:
            if DEFAULT not in self.names():
                self.create(DEFAULT, Spec(fingerprint, dim))
            for name in self._names_of(fingerprint):
                self._open_from_disk(name)
            self._users[fingerprint] += 1

    def release(self, fingerprint: str) -> None:
        """Closes the indexes of a model as often as it was acquired: at the last time."""
        with self._opening:
            self._users[fingerprint] -= 1
            if not self._users[fingerprint]:
                for name in self._names_of(fingerprint):
                    if (index := self._open.pop(name, None)) is not None:
                        index.close()

    def names(self) -> list[str]:
        """The names of all indexes, also of those that cannot be used."""
        return sorted({*self._specs, *self._broken})

    def spec(self, name: str) -> Spec:
        """What the index is.

        Raises:
            UnknownIndex: there is none of that name.
            IndexProblem: its file cannot be read.
        """
        if self._is_closed:
            raise IndexProblem(f"the indexes in {self._folder} are closed")
        if name in self._broken:
            raise self._broken[name]
        if name not in self._specs:
            raise UnknownIndex(f"there is no index {name!r}")
        return self._specs[name]

    def open(self, name: str) -> Index:
        """The index, at once if it is open, or else read from disk; for the errors see `spec`."""
        if (index := self._open.get(name)) is not None:
            return index
        with self._opening:
            self.spec(name)
            self._open_from_disk(name)
            self.spec(name)  # it may have turned out to be damaged
            return self._open[name]

    def create(self, name: str, spec: Spec) -> bool:
        """Makes an index that is on disk when this returns; False where it is there already, and the same.

        Raises:
            IndexConflict: it is there with other options.
            IndexProblem: the name cannot be one, or it cannot be made.
        """
        check_name(name)
        with self._making:
            if name in self.names():
                self._check_same(name, spec)
                return False
            make(self._path(name), spec)
            self._open_from_disk(name)
            self._specs[name] = spec
            return True

    def drop(self, name: str) -> None:
        """Removes an index with all its items; it is gone from disk when this returns. For the errors see `spec`."""
        with self._opening, self._making:
            if name not in self._broken:
                self.spec(name)
            self._specs.pop(name, None)  # first: whoever asks for it from now on need not wait to learn that it is gone
            if (index := self._open.pop(name, None)) is not None:
                index.close()
            self._remove(name)
            self._broken.pop(name, None)

    def count(self, name: str) -> int:
        """How many items an open index holds; 0 of any other."""
        index = self._open.get(name)
        return 0 if index is None else len(index)

    def problems(self) -> dict[str, str]:
        """What is wrong with which index."""
        broken = {name: str(problem) for name, problem in self._broken.items()}
        return broken | {name: index.problem for name, index in self._open.items() if index.problem is not None}

    def close(self) -> None:
        """Closes every index, and lets others into the folder."""
        with self._opening, self._making:
            self._is_closed = True
            for index in self._open.values():
                index.close()
            self._open.clear()
            self._folder_lock.release()

    def _names_of(self, fingerprint: str) -> list[str]:
        return [name for name, spec in list(self._specs.items()) if spec.fingerprint == fingerprint]

    def _look_at(self, name: str) -> None:
        path = self._path(name)
        try:
            migrate(path)
            connection = open_reader(path)
            try:
                self._specs[name] = spec_of(read_about(connection, path), path)
            finally:
                connection.close()
        except IndexProblem as problem:
            self._broken[name] = problem

    def _open_from_disk(self, name: str) -> None:
        if name in self._open or name in self._broken:
            return
        try:
            self._open[name] = Index(self._path(name), self._threads, self._turn, self._device)
        except IndexProblem as problem:
            self._broken[name] = problem

    def _remove(self, name: str) -> None:
        path = self._path(name)
        gone = path.with_name(f".{path.name}{PARTIAL}")
        try:
            path.replace(gone)
        except OSError:
            self._look_at(name)  # it is still there
            raise
        sync(self._folder)
        for file in (gone, *wal_files(path)):
            file.unlink(missing_ok=True)

    def _check_same(self, name: str, spec: Spec) -> None:
        if (found := self.spec(name)) != spec:
            found.check_serves(spec.fingerprint)
            raise IndexConflict(
                f"the index {name!r} is there already, {found.kind} in {found.dtype} "
                f"{'with' if found.thumbnails else 'without'} thumbnails"
            )

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{SUFFIX}"


@dataclass(frozen=True)
class Description:
    """An index as it is listed: what it is, how many items it holds, and what is wrong with it, if something is."""

    name: str
    spec: Spec | None
    count: int | None
    detail: str | None
    recall: float | None = None
    device: Device | None = None


@dataclass(frozen=True)
class Serving:
    """The indexes as one model can use them: a light view, of which there may be several. `serve` makes them."""

    indexes: Indexes
    fingerprint: str
    dim: int

    def __getitem__(self, name: str) -> Index:
        """The index of that name.

        Raises:
            UnknownIndex: there is none.
            IndexConflict: it was made with another model.
            IndexProblem: it cannot be read.
        """
        try:
            self.indexes.spec(name).check_serves(self.fingerprint)
        except IndexConflict as conflict:
            raise IndexConflict(f"index {name!r}: {conflict}") from None
        return self.indexes.open(name)

    def names(self) -> list[str]:
        """The names of all indexes, also of those that cannot be used with this model."""
        return self.indexes.names()

    def create(self, name: str, dtype: Dtype = "float16", kind: Kind = "exact", *, thumbnails: bool = False) -> bool:
        """Makes an index of this model; see `Indexes.create`."""
        return self.indexes.create(name, Spec(self.fingerprint, self.dim, dtype, kind, thumbnails))

    def drop(self, name: str) -> None:
        """Removes an index, of whichever model; see `Indexes.drop`."""
        self.indexes.drop(name)

    def describe(self, name: str) -> Description:
        """The index of that name.

        Raises:
            UnknownIndex: there is none.
        """
        try:
            index = self[name]
        except UnknownIndex:
            raise
        except IndexProblem as problem:
            return Description(name, None, None, str(problem))
        return Description(name, index.spec, len(index), index.problem, index.recall, index.device)

    def count(self, name: str) -> int:
        """How many items the index holds; 0 where it cannot be used with this model."""
        try:
            return len(self[name])
        except IndexProblem:
            return 0

    def problems(self) -> dict[str, str]:
        """What is wrong with which index: its file, its disk, or some of its items."""
        return self.indexes.problems()

    def close(self) -> None:
        """To be called once when nobody uses it any more: with the last one of a model, its indexes are closed."""
        self.indexes.release(self.fingerprint)


def serve(indexes: Indexes, fingerprint: str, dim: int) -> Serving:
    """The indexes as the model `fingerprint` can use them, opened; `default` is made where there is none.

    Raises:
        IndexProblem: it cannot be made.
    """
    indexes.acquire(fingerprint, dim)
    return Serving(indexes, fingerprint, dim)
