"""Backups, taken of an index while it is worked on."""

from __future__ import annotations

import threading
from itertools import count
from pathlib import Path

from rankone.index.backup import back_up
from rankone.index.database import SUFFIX
from rankone.model.files import make_folder
from tests.index.crash.ledger import Ledger


def silent(*_: int) -> None:
    """Tells nobody."""


class Copier(threading.Thread):
    """Backs up the index at `path` into `folder`, over and over for as long as the block runs, and once at least."""

    def __init__(self, path: Path, folder: Path, ledger: Ledger) -> None:
        super().__init__(daemon=True)
        self._path, self._folder, self._ledger = path, folder, ledger
        self._is_over = threading.Event()
        make_folder(folder)

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.join()

    def run(self) -> None:
        for number in count():
            name = f"{number}{SUFFIX}"
            self._ledger.copy(name)
            try:
                back_up(self._path, self._folder / name, silent)
            except Exception as error:
                self._ledger.fault(f"backup {name}: {type(error).__name__}: {error}")
                return
            self._ledger.copied(name)
            if self._is_over.is_set():
                return
