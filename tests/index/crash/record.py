"""What a process does to its files, written down by `recorder.c` and read again."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_HEADER: Final = struct.Struct("<8sqqq")


@dataclass(frozen=True)
class Event:
    """One call: a write of `data` at `offset`, a cut to the size `offset`, a sync or a name, with names in `data`."""

    kind: str
    inode: int
    offset: int
    data: bytes

    @property
    def paths(self) -> list[Path]:
        return [Path(os.fsdecode(path)) for path in self.data.split(b"\0")]


def events(record: Path) -> list[Event]:
    """All that was recorded, but for a last event that a kill cut short."""
    data = record.read_bytes()
    found, at = [], 0
    while at + _HEADER.size <= len(data):
        kind, inode, offset, size = _HEADER.unpack_from(data, at)
        at += _HEADER.size + size
        if at <= len(data):
            found.append(Event(kind.rstrip(b"\0").decode(), inode, offset, data[at - size : at]))
    return found


def built(folder: Path) -> Path:
    """The recorder as a library, made by the C compiler of this machine."""
    library = folder / "recorder.so"
    source = Path(__file__).with_name("recorder.c")
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert compiler is not None
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-lpthread"], check=True)
    return library


def environment(library: Path, root: Path, record: Path, **failures: str) -> dict[str, str]:
    """The environment of a process whose files under `root` are to be recorded."""
    recorder = {"LD_PRELOAD": str(library), "RECORD_ROOT": str(root), "RECORD_TO": str(record)}
    return {**os.environ, **recorder, **failures}
