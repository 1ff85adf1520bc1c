"""Files that are whole and on disk, or not there."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from pathlib import Path
from typing import BinaryIO, cast


def sync(path: Path) -> None:
    """Waits until a file, or the entries of a directory, are on disk. Windows cannot sync directories."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Makes a directory, and those above it that are missing; each is on disk when this returns.

    A file is lost with its directory, if that was never synced into the one above it.
    """
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file to read, and refuses anything else without waiting for it: a pipe, a device, a symbolic link.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a symbolic link, not a regular file") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return os.fdopen(descriptor, "rb")


def sha256_of(file: BinaryIO) -> str:
    """The checksum of what is left to read of a file, in hexadecimal."""
    return hashlib.file_digest(cast("io.BufferedReader", file), "sha256").hexdigest()
