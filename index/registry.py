"""The indexes of a folder by name."""

from __future__ import annotations

import math
import re
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final, NamedTuple

from rankone.index.database import PARTIAL, SUFFIX, SearchDevice, Spec, create_file, locked, map_file, wal_files
from rankone.index.device import check_device
from rankone.index.errors import DeviceProblem, IndexConflict, IndexProblem, UnknownIndex
from rankone.index.index import Index
from rankone.index.items import Reader
from rankone.model.files import sync

DEFAULT: Final = "default"
NAME: Final = r"[a-z0-9][a-z0-9_-]{0,63}"
_RETRY_S: Final = 30.0
"""An index that failed because of the device is not read again sooner, however many requests ask for it."""


class _Fault(NamedTuple):
    """Why an index cannot be used. Not the exception itself: its traceback would keep the rows that were read in memory."""

    kind: type[IndexProblem]
    message: str
    retry_at: float
    """By `time.monotonic`. A damaged file is never read again."""


def check_name(name: str) -> None:
    """Raises IndexProblem if no index can have this name."""
    if not re.fullmatch(NAME, name):
        raise IndexProblem(f"{name!r} cannot name an index: up to 64 of a-z, 0-9, - and _, beginning with a-z or 0-9")


class Indexes:
    """Every index in `folder`, which no other process can open meanwhile.

    An index whose file cannot be read is reported in `problems`; the others work. If the device was the reason, `acquire` tries
    again, and so does `open` after a while. The indexes of a model are open from `acquire` to `release`, and hold no memory
    otherwise. Exact ones are searched on `device`, compact ones on the CPU.

    Safe to call from any thread. An open index is found without waiting for another that is being opened, made or dropped.

    Raises:
        IndexProblem: another process uses the folder, it cannot be written, or the device cannot be used.
    """

    def __init__(self, folder: Path, num_threads: int = 1, device: SearchDevice = "cpu") -> None:
        check_device(device)
        self._folder, self._num_threads, self._device = folder, num_threads, device
        self._cpu_turn = threading.Lock()  # held by the one index that is being searched: each search uses all threads
        # `_opening` may be held for minutes while an index is read. Take it before `_making`.
        self._opening, self._making = threading.RLock(), threading.Lock()
        self._users = Counter[str]()
        self._open: dict[str, Index] = {}
        self._specs: dict[str, Spec] = {}
        self._broken: dict[str, _Fault] = {}
        self._is_closed = False
        self._folder_lock = ExitStack()
        self._folder_lock.enter_context(locked(folder))
        for leftover in folder.glob(f".*{PARTIAL}*"):
            leftover.unlink()
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            self._read_spec(path.stem)

    def acquire(self, fingerprint: str, dim: int, *, thumbnails: bool = False) -> None:
        """Opens the indexes of a model, until `release`.

        Makes the index `default` if there is none, with `thumbnails` or without, or raises IndexProblem.
        """
        with self._opening:
            self._check_open()
            if DEFAULT not in self.names():
                self.create(DEFAULT, Spec(fingerprint, dim, thumbnails=thumbnails))
            for name in self._names_of(fingerprint):
                self._open_from_disk(name)
            self._users[fingerprint] += 1

    def release(self, fingerprint: str) -> None:
        """Closes the indexes of a model once it has been released as often as it was acquired."""
        with self._opening:
            self._users[fingerprint] -= 1
            if not self._users[fingerprint]:
                for name in self._names_of(fingerprint):
                    if (index := self._open.pop(name, None)) is not None:
                        index.close()

    def names(self) -> list[str]:
        """The names of all indexes, also of unusable ones."""
        return sorted({*self._specs, *self._broken})

    def spec(self, name: str) -> Spec:
        """What the index is.

        Raises:
            UnknownIndex: there is none of that name.
            IndexProblem: its file cannot be read.
        """
        self._check_open()
        if (fault := self._broken.get(name)) is not None and time.monotonic() < fault.retry_at:
            raise fault.kind(fault.message)
        if (spec := self._specs.get(name)) is None:
            raise UnknownIndex(f"there is no index {name!r}")
        return spec

    def open(self, name: str, fingerprint: str | None = None) -> Index:
        """The index, at once if it is open, otherwise read from disk; for the errors see `spec`.

        Raises:
            IndexConflict: it was made with another model than `fingerprint`, if that is given.
        """
        spec = self.spec(name)
        if fingerprint is not None:
            spec.check_model(fingerprint, name)
        if (index := self._open.get(name)) is not None:
            return index
        with self._opening:
            self.spec(name)  # it may have been dropped meanwhile
            self._open_from_disk(name)
            self.spec(name)  # it may have turned out to be damaged
            return self._open[name]

    def count(self, name: str) -> int:
        """The number of items in an open index; 0 for any other."""
        index = self._open.get(name)
        return 0 if index is None else len(index)

    def problems(self) -> dict[str, str]:
        """The faults of indexes that cannot be used or written, by name."""
        broken = {name: fault.message for name, fault in list(self._broken.items())}
        found = ((name, index.problem) for name, index in list(self._open.items()))
        return broken | {name: problem for name, problem in found if problem is not None}

    def create(self, name: str, spec: Spec) -> bool:
        """Makes an index, which is on disk on return; False if the same index exists already.

        Raises:
            IndexConflict: it exists with other options.
            IndexProblem: the name is not allowed, or the index cannot be made.
        """
        check_name(name)
        with self._making:
            self._check_open()
            if name in self.names():
                if (found := self.spec(name)) == spec:
                    return False
                found.check_model(spec.fingerprint, name)
                thumbnails = f"{'with' if found.thumbnails else 'without'} thumbnails"
                what = f"{found.kind} in {found.dtype} {thumbnails}, of {found.dim:,} numbers"
                raise IndexConflict(f"there is an index {name!r} already, {what}")
            path = self._path(name)
            create_file(path, spec)
            try:
                self._open[name] = self._read(name)
            except Exception:
                for file in (path, *wal_files(path)):
                    file.unlink(missing_ok=True)
                raise
            self._specs[name] = spec
            return True

    def drop(self, name: str) -> None:
        """Removes an index with all its items; it is gone from disk on return. For the errors see `spec`."""
        with self._opening, self._making:
            self._check_open()
            if name not in self._broken:
                self.spec(name)
            self._specs.pop(name, None)  # first, so that from now on nobody waits to learn that it is gone
            if (index := self._open.pop(name, None)) is not None:
                index.close()
            path = self._path(name)
            dropped = path.with_name(f".{path.name}{PARTIAL}")
            try:
                path.replace(dropped)
            except OSError:
                self._read_spec(name)  # it still exists
                raise
            sync(self._folder)
            for file in (dropped, *wal_files(path), map_file(path)):
                file.unlink(missing_ok=True)
            self._broken.pop(name, None)

    def close(self) -> None:
        """Closes every index and releases the folder."""
        with self._opening, self._making:
            self._is_closed = True
            for index in self._open.values():
                index.close()
            self._open.clear()
            self._folder_lock.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise IndexProblem(f"the indexes in {self._folder} are closed")

    def _names_of(self, fingerprint: str) -> list[str]:
        return [name for name, spec in list(self._specs.items()) if spec.fingerprint == fingerprint]

    def _read_spec(self, name: str) -> None:
        try:
            with closing(Reader(self._path(name))) as reader:
                self._specs[name] = reader.about().spec
        except IndexProblem as problem:
            self._broken[name] = _fault(problem)

    def _open_from_disk(self, name: str) -> None:
        """Opens an index that is not open, unless its file is damaged. The caller must hold `_opening`."""
        fault = self._broken.get(name)
        if name in self._open or (fault is not None and fault.retry_at == math.inf):
            return
        if fault is not None:  # requests for it do not wait meanwhile
            self._broken[name] = fault._replace(retry_at=time.monotonic() + _RETRY_S)
        try:
            self._open[name] = self._read(name)
            self._broken.pop(name, None)
        except IndexProblem as problem:
            self._broken[name] = _fault(problem)

    def _read(self, name: str) -> Index:
        return Index(self._path(name), self._num_threads, self._cpu_turn, self._device)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{SUFFIX}"


def _fault(problem: IndexProblem) -> _Fault:
    is_temporary = isinstance(problem, DeviceProblem)
    return _Fault(type(problem), str(problem), time.monotonic() + _RETRY_S if is_temporary else math.inf)
