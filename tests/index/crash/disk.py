"""What a disk would have, after a power cut, of what a process did to its files.

A disk may lose everything that was not synced, and may keep any part of it: of a file every block by itself, and the entries
of a folder (names given, changed and taken away) up to any point, one after another, as journals keep them. A file whose name
was not synced is lost, however well its content was. Pages whose sync failed are not written by a later one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.index.crash.record import Event

_BLOCK: Final = 512

Survives = Callable[[], bool]
"""Whether the next piece that was not synced is on the disk all the same."""
Heeds = Callable[[Path], bool]
"""Whether a sync of the file that was made under this name, or of this folder, does anything: for control experiments."""


@dataclass
class _Folder:
    path: Path


@dataclass
class _File:
    """What is on disk for certain, and what was written since. `path` is the name it was made under."""

    path: Path
    durable: bytearray = field(default_factory=bytearray)
    written: list[Event] = field(default_factory=list)

    def sync(self, survives: Survives) -> None:
        """What does not survive now never will."""
        self.durable = self.after_cut(survives)
        self.written.clear()

    def after_cut(self, survives: Survives) -> bytearray:
        content = bytearray(self.durable)
        for event in self.written:
            for offset, block in _blocks(event):
                if survives():
                    _apply(content, offset, block, event.kind)
        return content


_Entry = _File | _Folder
_Names = dict[Path, _Entry | None]


class Disk:
    """The files under `root`, empty at first, in the state that the events played so far leave them in.

    `survives` tells what the disk took of a sync that failed. Inodes are given again, to files that have nothing to do with the
    ones that had them before and whose names may be on the disk still.
    """

    def __init__(self, root: Path, survives: Survives, heeds: Heeds = lambda _: True) -> None:
        self._root, self._survives, self._heeds = root, survives, heeds
        self._entries: dict[int, _Entry] = {root.stat().st_ino: _Folder(root)}
        self._names: _Names = {}
        self._changes: dict[Path, list[_Names]] = defaultdict(list)

    def play(self, event: Event) -> None:
        entry = self._entries.get(event.inode)
        if event.kind in ("create", "mkdir", "rename", "unlink"):
            self._name(event)
        elif entry is None or event.kind == "open" or (event.kind == "synced" and not self._heeds(entry.path)):
            return
        elif isinstance(entry, _File):
            self._change(entry, event)
        elif event.kind == "synced":
            self._sync_folder(entry.path)

    def read(self, path: Path) -> bytes:
        """A file as its process saw it."""
        names = dict(self._names)
        for changes in self._changes.values():
            for change in changes:
                names.update(change)
        entry = names.get(path)
        return bytes(entry.after_cut(_all)) if isinstance(entry, _File) else b""

    def cut(self, target: Path, survives: Survives) -> None:
        """Writes to `target` what the power cut leaves of `root`."""
        names = dict(self._names)
        for changes in self._changes.values():
            for change in changes:
                if not survives():
                    break
                names.update(change)
        target.mkdir(parents=True)
        for path, entry in sorted(names.items()):
            place = target / path.relative_to(self._root)
            if isinstance(entry, _Folder) and self._is_reachable(path, names):
                place.mkdir(exist_ok=True)
            elif isinstance(entry, _File) and self._is_reachable(path, names):
                place.write_bytes(entry.after_cut(survives))

    def _is_reachable(self, path: Path, names: _Names) -> bool:
        return path.parent == self._root or (
            names.get(path.parent) is not None and self._is_reachable(path.parent, names)
        )

    def _name(self, event: Event) -> None:
        path = event.paths[0]
        if event.kind == "create":
            self._entries[event.inode] = _File(path)
        elif event.kind == "mkdir":
            self._entries[event.inode] = _Folder(path)
        entry = self._entries.get(event.inode)
        change: _Names = {path: None if event.kind in ("unlink", "rename") else entry}
        if event.kind == "rename":
            change[event.paths[1]] = entry
        self._changes[path.parent].append(change)

    def _sync_folder(self, folder: Path) -> None:
        for change in self._changes.pop(folder, []):
            self._names.update(change)

    def _change(self, file: _File, event: Event) -> None:
        if event.kind == "synced":
            file.sync(_all)
        elif event.kind == "unsynced":
            file.sync(self._survives)
        else:
            file.written.append(event)


def _all() -> bool:
    return True


def _apply(content: bytearray, offset: int, data: bytes, kind: str) -> None:
    if kind == "cut":
        del content[offset:]
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


def _blocks(event: Event) -> Iterator[tuple[int, bytes]]:
    """A write in pieces that a disk writes whole, each by itself; a cut is one."""
    if event.kind == "cut":
        yield event.offset, b""
        return
    end = event.offset + len(event.data)
    at = event.offset
    while at < end:
        then = min(end, (at // _BLOCK + 1) * _BLOCK)
        yield at, event.data[at - event.offset : then - event.offset]
        at = then
