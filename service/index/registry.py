"""The indexes of a service by name."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from service.index.errors import IndexConflict, UnknownIndex
from service.index.index import Index

DEFAULT: Final = "default"


class Indexes:
    """The index `default` of the bundle `fingerprint`, in `folder`.

    An index that was made with another bundle stays untouched on disk, and whoever asks for it is told so: the service
    still embeds and classifies.
    """

    def __init__(self, folder: Path, fingerprint: str, dim: int, threads: int = 1) -> None:
        self._open: dict[str, Index] = {}
        self._conflicts: dict[str, IndexConflict] = {}
        try:
            self._open[DEFAULT] = Index(folder / f"{DEFAULT}.sqlite", fingerprint, dim, threads)
        except IndexConflict as conflict:
            self._conflicts[DEFAULT] = conflict

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

    def close(self) -> None:
        """Closes every index."""
        for index in self._open.values():
            index.close()
