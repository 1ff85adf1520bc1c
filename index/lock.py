"""One process at a time: a lock on the folder of the indexes, which the system lets go of when the process dies."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Final

from rankone.index.errors import IndexProblem
from rankone.model.files import make_folder

NAME: Final = ".lock"


class FolderLock:
    """Held from construction to `release`.

    Raises:
        IndexProblem: another process holds it, or the folder cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        try:
            make_folder(folder)
            self._file = (folder / NAME).open("a")
        except OSError as error:
            raise IndexProblem(f"{folder} cannot be opened: {error}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise IndexProblem(f"the indexes in {folder} cannot be opened: another process is using it") from error

    def release(self) -> None:
        """Lets others in."""
        self._file.close()
