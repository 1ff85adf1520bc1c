"""`rankone data download`: fetches published archives, resumes interrupted downloads, checks their md5 and unpacks them."""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, Final
from urllib.error import HTTPError

from rich.console import Console
from rich.progress import Progress

from rankone.training.data.dataset import DataError


@dataclass(frozen=True)
class PublishedFile:
    """A published file of a data set, with its md5 if that is published too."""

    url: str
    md5: str | None = None

    @property
    def name(self) -> str:
        """Of the file."""
        return self.url.rpartition("/")[2]

    @property
    def is_archive(self) -> bool:
        """Whether it is to be unpacked."""
        return self.name.endswith((".tar", ".tgz", ".tar.gz"))


_OXFORD: Final = "https://www.robots.ox.ac.uk/~vgg/data"
_TORRALBA: Final = "http://web.mit.edu/torralba/www"
SOURCES: Final[Mapping[str, tuple[PublishedFile, ...]]] = {
    "cub": (
        PublishedFile(
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz", "97eceeb196236b17998738112f37df78"
        ),
    ),
    "aircraft": (
        PublishedFile(
            f"{_OXFORD}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz", "d4acdd33327262359767eeaa97a4f732"
        ),
    ),
    "mit67": (
        PublishedFile("http://groups.csail.mit.edu/vision/LabelMe/NewImages/indoorCVPR_09.tar"),
        PublishedFile(f"{_TORRALBA}/TrainImages.txt"),
        PublishedFile(f"{_TORRALBA}/TestImages.txt"),
    ),
    "dtd": (PublishedFile(f"{_OXFORD}/dtd/download/dtd-r1.0.1.tar.gz", "fff73e5086ae6bdbea199a49dfb8a4c1"),),
}
"""The checksums are stated by the publishers, or agreed on by many loaders; there are none for MIT's files."""

_CHUNK: Final = 1 << 20
_TIMEOUT_S: Final = 30
_PARTIAL_CONTENT: Final = 206
_NOT_SATISFIABLE: Final = 416


def download(name: str, home: Path, sources: Mapping[str, tuple[PublishedFile, ...]] = SOURCES) -> None:
    """Fetches and unpacks the data set `name` into `home`; files that exist are not fetched again.

    Raises:
        DataError: no such data set, no network, or an archive that differs from the published one.
    """
    if name not in sources:
        raise DataError(f"{name} cannot be downloaded; these can: {', '.join(sources)}")
    home.mkdir(parents=True, exist_ok=True)
    for source in sources[name]:
        if source.is_archive and is_unpacked(home / source.name):
            continue
        path = fetch(source, home)
        if source.is_archive:
            unpack(path)


def fetch(source: PublishedFile, home: Path) -> Path:
    """Downloads `source` into `home`, or completes an interrupted download; the file is whole and checked, or missing.

    Raises:
        DataError: it cannot be fetched, with what to do; or its checksum differs.
    """
    path, partial = home / source.name, home / f"{source.name}.part"
    if path.exists():  # perhaps put there by hand: ours to check, not to remove
        if fault := _fault(path, source):
            raise DataError(f"{path}: {fault}; replace it, or remove it and it is fetched from {source.url}")
        return path
    try:
        _complete(source.url, partial)
    except (OSError, HTTPException) as error:
        raise DataError(
            f"{source.url} cannot be fetched: {error}. The same command resumes the download; without a "
            f"network, put {source.name} into {home} by hand and repeat it"
        ) from error
    if fault := _fault(partial, source):
        partial.unlink()
        raise DataError(f"{source.url}: {fault}; it was removed, fetch it again")
    return partial.replace(path)


def _complete(url: str, partial: Path) -> None:
    """Fetches the missing end of `partial`; all of it, if the server cannot start in the middle."""
    done = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": "rankone", **({"Range": f"bytes={done}-"} if done else {})}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - only the addresses above
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            start = done if answer.status == _PARTIAL_CONTENT else 0
            with partial.open("ab" if start else "wb") as file:
                _copy(answer, file, start, partial.stem)
    except HTTPError as error:
        if error.code != _NOT_SATISFIABLE or not done:
            raise
        _, _, length = error.headers.get("Content-Range", "").rpartition("/")  # `bytes */LENGTH`
        if length != str(done):  # the partial file is of another file: nothing of it can be kept
            partial.unlink()
            _complete(url, partial)


def _copy(answer: Any, file: IO[bytes], done: int, name: str) -> None:
    length = answer.headers.get("Content-Length")
    total = None if length is None else done + int(length)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=total, completed=done)
        while block := answer.read1(_CHUNK):  # what arrived before an interruption is kept
            file.write(block)
            done += len(block)
            bar.advance(task, len(block))
    if total is not None and done < total:
        raise OSError(f"the connection broke off after {done:,} of {total:,} bytes")


def _fault(path: Path, source: PublishedFile) -> str | None:
    if source.md5 is None:
        return None
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    return None if found == source.md5 else f"its md5 is {found}, published is {source.md5}"


def unpack(archive: Path) -> None:
    """Unpacks the archive beside itself, replacing nothing; raises DataError if it is broken or has files outside of it."""
    try:
        if not tarfile.is_tarfile(archive):
            raise DataError(f"{archive} is not an archive; remove it and download again")
        with (
            tempfile.TemporaryDirectory(prefix=".unpacking.", dir=archive.parent, ignore_cleanup_errors=True) as stage,
            tarfile.open(archive) as tar,
        ):
            tar.extractall(stage, filter="data")
            _check_end(tar)
            names = sorted(entry.name for entry in Path(stage).iterdir())
            for name in names:
                if not (archive.parent / name).exists():
                    Path(stage, name).rename(archive.parent / name)
        _record(archive).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    except (OSError, tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{archive} cannot be unpacked: {error}; remove it and download again") from error


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
