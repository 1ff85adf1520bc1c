"""Records the last acknowledged change in a small file beside the index, so that a log that lost its end is noticed.

A log whose end is cut off, or damaged, looks like one that was never longer. After every transaction, and before it is
acknowledged, its place in the log is written down here and synced. In this order, a note never names a change that is not on
disk. So if the log lacks a change that the note names, it was lost.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rankone.index.errors import IndexProblem
from rankone.index.log import Log
from rankone.model.files import sync

_NOTE: Final = struct.Struct("<8sQQ8sII")
_SUM: Final = struct.Struct("<I")
_MAGIC: Final = b"rankone1"
_SLOT: Final = 4096
"""Notes are written to two slots by turns, in different blocks of the disk, so that one is whole at any time."""
_SHARED: Final = struct.Struct("=I12xI12x8s8x")
"""SQLite's index of the log: its version, the frames of all transactions, and the salts of the log."""
_VERSION: Final = 3007000


@dataclass(frozen=True)
class Note:
    """The last acknowledged sequence number, the frames that its log had, and how many of them the database holds by itself."""

    turn: int = 0
    sequence: int = 0
    salts: bytes = bytes(8)
    frames: int = 0
    checkpointed: int = 0

    def is_borne_out(self, log: Log | None) -> bool:
        """Whether everything that was acknowledged is in the database or in the log."""
        return self.frames <= self.checkpointed or (
            log is not None and log.salts == self.salts and log.frames >= self.frames
        )

    def supersedes(self, log: Log | None) -> bool:
        """Whether the log has fewer frames than the database already holds: older pages, which must not be read."""
        return log is not None and log.salts == self.salts and log.frames < self.checkpointed


def note_file(path: Path) -> Path:
    """The file with the notes about the index at `path`."""
    return path.with_name(f"{path.name}-ack")


def last_note(path: Path) -> Note:
    """The newest whole note about the index at `path`; of turn 0 if there is none. Raises OSError if it cannot be read."""
    try:
        data = note_file(path).read_bytes()
    except FileNotFoundError:
        return Note()
    notes = [_parsed(data[start : start + _NOTE.size + _SUM.size]) for start in (0, _SLOT)]
    return max((note for note in notes if note is not None), key=lambda note: note.turn, default=Note())


class Acknowledged:
    """Writes the notes. Open it after the connection that writes, whose log it looks at, and close it after that.

    Raises OSError if the disk fails.
    """

    def __init__(self, path: Path) -> None:
        self._last = last_note(path)
        file = note_file(path)
        is_new = not file.exists() or file.stat().st_size < 2 * _SLOT
        self._file = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        # Must stay open: when a process closes any descriptor of this file, the system drops SQLite's locks on it.
        self._shared = os.open(path.with_name(f"{path.name}-shm"), os.O_RDONLY | os.O_CLOEXEC)
        if is_new:
            os.pwrite(self._file, bytes(2 * _SLOT), 0)
            os.fsync(self._file)
            sync(path.parent)

    @property
    def sequence(self) -> int:
        """The last acknowledged sequence number."""
        return self._last.sequence

    def write(self, sequence: int, *, is_checkpointed: bool = False) -> None:
        """Notes that everything up to `sequence` is on disk, and whether the database holds it without the log."""
        frames, salts = self._log_state()
        held = self._last.checkpointed if salts == self._last.salts else 0
        checkpointed = frames if is_checkpointed else min(held, frames)
        note = Note(self._last.turn + 1, sequence, salts, frames, checkpointed)
        data = _NOTE.pack(_MAGIC, note.turn, sequence, salts, frames, checkpointed)
        os.pwrite(self._file, data + _SUM.pack(zlib.crc32(data)), note.turn % 2 * _SLOT)
        os.fdatasync(self._file)
        self._last = note

    def close(self) -> None:
        """Closes the files."""
        os.close(self._file)
        os.close(self._shared)

    def _log_state(self) -> tuple[int, bytes]:
        """The frames of the log, and its salts, as SQLite has them in the memory that connections share."""
        version, frames, salts = _SHARED.unpack(os.pread(self._shared, _SHARED.size, 0))
        if version != _VERSION:
            raise IndexProblem(f"this SQLite keeps its log in an unknown form ({version}): install another version")
        return frames, salts


def _parsed(data: bytes) -> Note | None:
    """A note, unless it is torn, damaged or missing."""
    if len(data) < _NOTE.size + _SUM.size or zlib.crc32(data[: _NOTE.size]) != _SUM.unpack_from(data, _NOTE.size)[0]:
        return None
    magic, *values = _NOTE.unpack_from(data)
    return Note(*values) if magic == _MAGIC else None
