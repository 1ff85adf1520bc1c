"""The indexes of a folder by name."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, NamedTuple

from rankone.index import faults
from rankone.index.backend import AnyIndexes
from rankone.index.ballast import Ballast
from rankone.index.database import PARTIAL, SUFFIX, companions, create_file, locked
from rankone.index.errors import DeviceProblem, IndexFull, IndexProblem, IndexUnavailable, UnknownIndex
from rankone.index.index import Index
from rankone.index.loss import outstanding, read_spec
from rankone.index.spec import DEFAULT, SearchDevice, Spec, check_device, check_name
from rankone.model.files import sync

logger = logging.getLogger("rankone")

_RETRY_S: Final = 30.0
"""An index that failed because of the device or the disk is not read again sooner, however many requests ask for it."""


class _Fault(NamedTuple):
    """Why an index cannot be used. Not the exception itself: its traceback would keep the rows that were read in memory."""

    kind: type[IndexProblem]
    message: str
    retry_at: float
    """By `time.monotonic`. A damaged file is never read again."""


class Indexes(AnyIndexes):
    """Every index in `folder`, which no other process can open meanwhile.

    An index whose file cannot be read is reported in `problems` and logged; the others work. Unless it is damaged, `acquire`
    tries again, and so does `open` after a while, and a thread if the disk was the reason. The indexes of a model are open from
    `acquire` to `release`, and hold no memory otherwise. Exact ones are searched on `device`, compact ones on the CPU.

    Safe to call from any thread. An open index is found without waiting for another that is being opened, made or dropped.

    Raises:
        IndexProblem: another process uses the folder, it cannot be written, or the device cannot be used.
    """

    backend = "local"

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
        self._closing = threading.Event()
        self._folder_lock = ExitStack()
        self._folder_lock.enter_context(locked(folder))
        try:
            for leftover in folder.glob(f".*{PARTIAL}*"):
                leftover.unlink()
            self._ballast = Ballast(folder)
        except OSError as error:
            self._folder_lock.close()
            raise faults.of_system(error, folder) from error
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            self._read_spec(path.stem)
        threading.Thread(target=self._try_again, name="rankone-open-again", daemon=True).start()

    def acquire(self, fingerprint: str, dim: int, *, thumbnails: bool = False) -> None:
        with self._opening:
            self._check_open()
            if DEFAULT not in self.names():
                self.create(DEFAULT, Spec(fingerprint, dim, thumbnails=thumbnails))
            for name in self._names_of(fingerprint):
                self._open_from_disk(name)
            self._users[fingerprint] += 1

    def release(self, fingerprint: str) -> None:
        with self._opening:
            self._users[fingerprint] -= 1
            if not self._users[fingerprint]:
                for name in self._names_of(fingerprint):
                    if (index := self._open.pop(name, None)) is not None:
                        index.close()

    def names(self) -> list[str]:
        return sorted({*self._specs, *self._broken})

    def spec(self, name: str) -> Spec:
        self._check_open()
        spec = self._specs.get(name)
        if (fault := self._broken.get(name)) is not None and (spec is None or time.monotonic() < fault.retry_at):
            raise fault.kind(fault.message)
        if spec is None:
            raise UnknownIndex(f"there is no index {name!r}")
        return spec

    def open(self, name: str, fingerprint: str | None = None) -> Index:
        """The index, at once if it is open, otherwise read from disk; for the errors see `AnyIndexes.open`."""
        fault = self._broken.get(name)
        if fault is not None and name not in self._specs and time.monotonic() >= fault.retry_at:
            with self._opening:
                self._read_spec(name)
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

    def counts(self) -> dict[str, int]:
        return {name: 0 if (index := self._open.get(name)) is None else len(index) for name in self.names()}

    def problems(self) -> dict[str, str]:
        broken = {name: fault.message for name, fault in list(self._broken.items())}
        found = ((name, index.problem) for name, index in list(self._open.items()))
        return broken | {name: problem for name, problem in found if problem is not None}

    def create(self, name: str, spec: Spec) -> bool:
        check_name(name)
        with self._making:
            self._check_open()
            if name in self.names():
                self.spec(name).check_same(spec, name)
                return False
            path = self._path(name)
            try:
                self._ballast.require()
                create_file(path, spec)
                self._open[name] = self._read(name)
            except IndexFull as full:
                _remove(path)
                raise IndexFull(f"there is no room left on the disk for the index {name!r}; nothing was made") from full
            except Exception:
                _remove(path)
                raise
            self._specs[name] = spec
            return True

    def drop(self, name: str) -> None:
        with self._opening, self._making:
            self._check_open()
            if name not in self._broken:
                self.spec(name)
            path = self._path(name)
            dropped = path.with_name(f".{path.name}{PARTIAL}")
            try:
                path.replace(dropped)  # before it is closed: on a disk that fails it stays in service
                sync(self._folder)
            except OSError as error:
                with suppress(OSError):
                    dropped.replace(path)
                problem = faults.of_system(error, path)
                raise type(problem)(f"the index {name!r} cannot be dropped and stays as it is: {problem}") from error
            self._specs.pop(name, None)  # first, so that from now on nobody waits to learn that it is gone
            self._broken.pop(name, None)
            if (index := self._open.pop(name, None)) is not None:
                index.close()
            _remove(dropped)
            _remove(path)

    def close(self) -> None:
        """Closes every index and releases the folder."""
        with self._opening, self._making:
            self._closing.set()
            for index in self._open.values():
                index.close()
            self._open.clear()
            self._folder_lock.close()

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise IndexProblem(f"the indexes in {self._folder} are closed")

    def _names_of(self, fingerprint: str) -> list[str]:
        return [name for name, spec in list(self._specs.items()) if spec.fingerprint == fingerprint]

    def _read_spec(self, name: str) -> None:
        try:
            self._specs[name] = read_spec(self._path(name))
            self._broken.pop(name, None)
        except IndexProblem as problem:
            self._break(name, problem)

    def _open_from_disk(self, name: str) -> None:
        """Opens an index that is not open, unless its file is damaged. The caller must hold `_opening`."""
        fault = self._broken.get(name)
        if name in self._open or (fault is not None and fault.retry_at == math.inf):
            return
        if fault is not None:  # requests for it do not wait meanwhile
            self._broken[name] = fault._replace(retry_at=time.monotonic() + _RETRY_S)
        try:
            self._open[name] = index = self._read_on_full_disk(name)
        except IndexProblem as problem:
            self._break(name, problem)
            return
        if self._broken.pop(name, None) is not None:
            logger.warning("index %s: works again", name)
        if index.problem is not None:
            logger.warning("index %s: %s", name, index.problem)

    def _read_on_full_disk(self, name: str) -> Index:
        try:
            return self._read(name)
        except IndexFull:
            self._ballast.release()
            return self._read(name)

    def _read(self, name: str) -> Index:
        return Index(self._path(name), self._num_threads, self._cpu_turn, self._device, self._ballast)

    def _try_again(self) -> None:
        """Opens indexes by and by whose disk was full or failed, and that a model in use needs."""
        while not self._closing.wait(_RETRY_S):
            for name, fault in list(self._broken.items()):
                if issubclass(fault.kind, IndexFull | IndexUnavailable):
                    self._try_one(name)

    def _try_one(self, name: str) -> None:
        with self._opening:
            if self._closing.is_set() or name not in self._broken:
                return
            if name not in self._specs:
                self._read_spec(name)
            if (spec := self._specs.get(name)) is not None and self._users[spec.fingerprint]:
                self._open_from_disk(name)

    def _break(self, name: str, problem: IndexProblem) -> None:
        """Remembers why an index cannot be used. Says so once, however often it is tried."""
        message = "; ".join([str(problem), *([lost] if (lost := outstanding(self._path(name))) else [])])
        if (known := self._broken.get(name)) is None or known.message != message:
            logger.warning("index %s: %s", name, message)
        is_temporary = isinstance(problem, DeviceProblem | IndexFull | IndexUnavailable)
        retry_at = time.monotonic() + _RETRY_S if is_temporary else math.inf
        self._broken[name] = _Fault(type(problem), message, retry_at)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{SUFFIX}"


def _remove(path: Path) -> None:
    """Removes a file and what belongs to it. What cannot be removed means nothing to another index of that name."""
    for file in (path, *companions(path)):
        with suppress(OSError):
            file.unlink(missing_ok=True)
