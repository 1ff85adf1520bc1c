"""`rankone data download`: archives from their official addresses, resumed where a download broke off, checked, unpacked."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from rich.progress import Progress

from training.datasets.dataset import DataError

_CHUNK: Final = 1 << 20
_PATIENCE_S: Final = 30
_NOT_SATISFIABLE: Final = 416


@dataclass(frozen=True)
class Source:
    """A file of a data set: where it is published, and its md5 where that is published too."""

    url: str
    md5: str | None = None

    @property
    def name(self) -> str:
        """Of the file."""
        return self.url.rpartition("/")[2]


SOURCES: Final[dict[str, tuple[Source, ...]]] = {
    "cub": (
        Source(
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz", "97eceeb196236b17998738112f37df78"
        ),
    ),
    "aircraft": (
        Source(
            "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
            "d4acdd33327262359767eeaa97a4f732",
        ),
    ),
    "mit67": (
        Source("http://groups.csail.mit.edu/vision/LabelMe/NewImages/indoorCVPR_09.tar"),
        Source("http://web.mit.edu/torralba/www/TrainImages.txt"),
        Source("http://web.mit.edu/torralba/www/TestImages.txt"),
    ),
    "dtd": (
        Source(
            "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz", "fff73e5086ae6bdbea199a49dfb8a4c1"
        ),
    ),
}
"""The checksums are those the publishers or torchvision state; MIT states none."""


def download(name: str, home: Path) -> None:
    """Fetches and unpacks the data set `name` into `home`; what is there already is not fetched again.

    Raises:
        DataError: no such data set, no network, or an archive that is not what was published.
    """
    if name not in SOURCES:
        raise DataError(f"{name} cannot be downloaded; these can: {', '.join(SOURCES)}")
    home.mkdir(parents=True, exist_ok=True)
    for source in SOURCES[name]:
        fetch(source, home)
    for source in SOURCES[name]:
        if tarfile.is_tarfile(home / source.name):
            unpack(home / source.name, home)


def fetch(source: Source, home: Path) -> Path:
    """The file of `source` in `home`: fetched, or what a broken download left completed; whole and checked, or not there.

    Raises:
        DataError: it cannot be had, with what to do; or its checksum is another one.
    """
    path, partial = home / source.name, home / f"{source.name}.part"
    if not path.exists():
        try:
            _continue(source.url, partial)
        except (OSError, urllib.error.URLError) as error:
            raise DataError(
                f"{source.url} cannot be fetched: {error}. The same command goes on where this one ended; without a "
                f"network, put {source.name} into {home} by hand and repeat it"
            ) from error
        _check(partial, source)
        partial.replace(path)
    return path


def unpack(archive: Path, home: Path) -> None:
    """The folders and files at the top of the archive, in `home`; each whole or not there, none that is there replaced.

    Raises:
        DataError: it cannot be unpacked.
    """
    stage = Path(tempfile.mkdtemp(prefix=".unpacking.", dir=home))
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(stage, filter="data")
        for entry in stage.iterdir():
            if not (home / entry.name).exists():
                entry.rename(home / entry.name)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise DataError(f"{archive} cannot be unpacked: {error}; remove it and download again") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _continue(url: str, partial: Path) -> None:
    done = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:  # noqa: S310 - only addresses above
            resumed = answer.status == 206
            with partial.open("ab" if resumed else "wb") as file:
                _copy(answer, file, done if resumed else 0, url.rpartition("/")[2])
    except urllib.error.HTTPError as error:
        if error.code != _NOT_SATISFIABLE or not done:
            raise  # otherwise all of it was there before


def _copy(answer: Any, file: IO[bytes], done: int, name: str) -> None:
    length = answer.headers.get("Content-Length")
    total = None if length is None else done + int(length)
    with Progress() as bar:
        task = bar.add_task(name, total=total, completed=done)
        while block := answer.read(_CHUNK):
            file.write(block)
            done += len(block)
            bar.advance(task, len(block))
    if total is not None and done < total:
        raise OSError(f"the connection broke off after {done:,} of {total:,} bytes")


def _check(partial: Path, source: Source) -> None:
    if source.md5 is None:
        return
    with partial.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != source.md5:
        partial.unlink()
        raise DataError(f"{source.url}: its md5 is {found}, published is {source.md5}; it was removed, fetch it again")
