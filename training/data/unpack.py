"""Unpacks archives: every folder or file is whole, or missing."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import Final

from rankone.training.data.dataset import DataError

_CHUNK: Final = 1 << 20


def unpack(archive: Path) -> None:
    """Unpacks the archive beside itself, replacing nothing; raises DataError if it is broken or has files outside of it."""
    stage = Path(tempfile.mkdtemp(prefix=".unpacking.", dir=archive.parent))
    try:
        if not tarfile.is_tarfile(archive):
            raise DataError(f"{archive} is not an archive; remove it and download again")
        with tarfile.open(archive) as tar:
            tar.extractall(stage, filter="data")
            _check_end(tar)
        names = sorted(entry.name for entry in stage.iterdir())
        for name in names:
            if not (archive.parent / name).exists():
                (stage / name).rename(archive.parent / name)
        _record(archive).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    except (OSError, tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{archive} cannot be unpacked: {error}; remove it and download again") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def is_unpacked(archive: Path) -> bool:
    """Whether everything that `unpack` took from it is still there; the archive itself need not be."""
    record = _record(archive)
    return record.exists() and all(
        (archive.parent / name).exists() for name in record.read_text(encoding="utf-8").splitlines()
    )


def _check_end(tar: tarfile.TarFile) -> None:
    """Raises ReadError unless the last file is the end: `tarfile` takes a broken header for it, and skips gzip's checksum."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"it is broken {tar.offset:,} bytes from its start")
    while tar.fileobj.read(_CHUNK):
        pass


def _record(archive: Path) -> Path:
    return archive.with_name(f".{archive.name}.unpacked")
