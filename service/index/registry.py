"""The indexes of a service by name."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from service.index.errors import IndexConflict, UnknownIndex
from service.index.index import Index

DEFAULT: Final = "default"


class Indexes:
    """The indexes in `folder`, whichever bundle they were made with."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self._folder, self._threads, self._open = folder, threads, dict[str, Index]()

    def serving(self, fingerprint: str, dim: int) -> IndexView:
        """The indexes as one bundle may use them."""
        conflicts: dict[str, IndexConflict] = {}
        try:
            self.close()
            self._open[DEFAULT] = Index(self._folder / f"{DEFAULT}.sqlite", fingerprint, dim, self._threads)
        except IndexConflict as conflict:
            conflicts[DEFAULT] = conflict
        return IndexView(self._open, conflicts)

    def close(self) -> None:
        """Closes every index."""
        for index in self._open.values():
            index.close()
        self._open.clear()


class IndexView:
    """What one bundle sees of the indexes. One that was made with another bundle stays untouched, and says so."""

    def __init__(self, opened: dict[str, Index], conflicts: dict[str, IndexConflict]) -> None:
        self._open, self._conflicts = opened, conflicts

    def __getitem__(self, name: str) -> Index:
        if name in self._conflicts:
            raise IndexConflict(f"index {name!r}: {self._conflicts[name]}")
        if name not in self._open:
            raise UnknownIndex(f"there is no index {name!r}")
        return self._open[name]

    def names(self) -> list[str]:
        """The names of all indexes, also of those that cannot be used with this bundle."""
        return sorted([*self._open, *self._conflicts])

    def count(self, name: str) -> int:
        """How many items the index holds; 0 where it cannot be used with this bundle."""
        return 0 if name in self._conflicts else len(self[name])
