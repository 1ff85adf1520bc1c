"""Whether the disk under a folder of indexes is fit for them: what is free, what can be written, and how SQLite works on it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LEAST_FREE: Final = 1_000_000_000
"""Bytes. With less, Prometheus raises the alert RankoneDiskLow too."""
_NETWORK: Final = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "prl_fs",
        "smb3",
        "smbfs",
        "vboxsf",
    }
    | {f"fuse.{name}" for name in ("glusterfs", "rclone", "s3fs", "sshfs", "vmhgfs-fuse")}
)
_MEMORY: Final = frozenset({"ramfs", "tmpfs"})
_MOUNTS: Final = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class Disk:
    """The disk of a folder, or of the nearest one above it that exists."""

    folder: Path
    free_bytes: int
    is_read_only: bool
    is_writable: bool
    """By this user."""
    file_system: str | None
    """Its type, as Linux names it; None if not known."""

    @property
    def is_network(self) -> bool:
        """On a network file system, SQLite's write-ahead log does not work: https://sqlite.org/wal.html."""
        return self.file_system in _NETWORK

    @property
    def is_memory(self) -> bool:
        """What is written is lost at a restart of the machine."""
        return self.file_system in _MEMORY


def disk_of(folder: Path) -> Disk:
    """The disk of `folder`; raises OSError if it cannot be looked at."""
    there = folder.resolve()
    while not there.exists():
        there = there.parent
    about = os.statvfs(there)
    try:
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # not Linux
        mounts = ""
    return Disk(
        folder=there,
        free_bytes=about.f_bavail * about.f_frsize,
        is_read_only=bool(about.f_flag & os.ST_RDONLY),
        is_writable=there.is_dir() and os.access(there, os.W_OK | os.X_OK),
        file_system=file_system_of(there, mounts),
    )


def file_system_of(folder: Path, mounts: str) -> str | None:
    """The type of the file system that holds an absolute path, by the lines of /proc/self/mountinfo (proc(5))."""
    found: tuple[int, str] | None = None
    for line in mounts.splitlines():
        fields, _, about = line.partition(" - ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields.split()[4]))
        if folder.is_relative_to(point) and (found is None or len(point.parts) >= found[0]):  # a later mount hides one
            found = len(point.parts), about.split()[0]
    return found and found[1]
