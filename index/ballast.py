"""Reserves disk space, so that a full disk can still delete items and move the log into the database."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Final

from rankone.index.errors import IndexFull
from rankone.index.faults import free_bytes

logger = logging.getLogger("rankone")

NUM_BYTES: Final = 1 << 24
"""As much as the log of an index may have between two checkpoints."""
_PART: Final = 16
"""Of a small disk, this part at most."""


class Ballast:
    """A file that reserves space in a folder of indexes: removed when the disk is full, made again when there is room.

    While it is given up, nothing may be added: what it left free is for deletions. Safe to call from any thread.
    """

    def __init__(self, folder: Path, num_bytes: int = NUM_BYTES) -> None:
        self._file, self._lock = folder / ".ballast", Lock()
        self._is_told = False
        found = os.statvfs(folder)
        self.num_bytes = min(num_bytes, found.f_blocks * found.f_frsize // _PART)
        """Its size; 0 keeps no room."""
        self.is_whole = False
        """Whether the room is still kept."""
        self.restore()

    def release(self) -> None:
        """Gives up the file."""
        with self._lock:
            if self.num_bytes and self.is_whole:
                self.is_whole = False
                with suppress(OSError):
                    self._file.unlink(missing_ok=True)
                if not self._is_told:
                    self._is_told = True
                    logger.warning(
                        "the disk is full: items can be deleted, and added again when %s are free", self._size
                    )

    def restore(self) -> bool:
        """Makes the file if it is not there; returns whether there was room."""
        with self._lock:
            if not self.is_whole:
                try:
                    self._allocate()
                except OSError:
                    with suppress(OSError):
                        self._file.unlink(missing_ok=True)
                    return False
                self.is_whole = True
                if self._is_told and free_bytes(self._file.parent) >= self.num_bytes:
                    self._is_told = False
                    logger.warning("the disk has room again: items can be added")
            return True

    def require(self) -> None:
        """Raises IndexFull if it was given up and cannot be made again."""
        if not self.is_whole and not self.restore():
            raise IndexFull(
                f"there is no room left on the disk; nothing of this request was stored. Delete items, or free {self._size}"
            )

    @property
    def _size(self) -> str:
        return f"{self.num_bytes / 1e6:.1f} MB"

    def _allocate(self) -> None:
        if self.num_bytes:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self.num_bytes)
            finally:
                os.close(descriptor)
