"""Which images a job has, and their bytes: files, folders, lists of them, and addresses of object stores (s3://, gs://, …)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from rankone.model.errors import RankoneError
from rankone.model.folders import SUFFIXES, Found, LeftOut, images_in, name_of

_SUFFIXES: Final = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
_NOT_AN_IMAGE: Final = "not named as images are"
MAX_ID: Final = 255


class NoSuchSource(RankoneError, ValueError):
    """A path or an address with nothing there, or of a store that cannot be read."""


@dataclass(frozen=True, order=True)
class JobImage:
    """An image of a job."""

    id: str
    """Of its item: `id_of` the path as it was given, or the address."""
    at: str
    """Where every machine finds it: an absolute path, or an address."""


def read_list(path: Path) -> list[str]:
    """The paths and addresses in a file, one a line.

    Raises:
        NoSuchSource: it cannot be read.
    """
    try:
        return [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise NoSuchSource(f"the list {name_of(path)} cannot be read: {error}") from error


def images_at(path: Path, left_out: LeftOut) -> list[Path]:
    """The file, or the images in the folder in order of their names; `left_out` counts what else the folder holds.

    Raises:
        NoSuchSource: nothing is there, or neither of the two.
    """
    if os.path.isdir(path):
        return images_in(path, left_out)
    if os.path.isfile(path):
        return [path]
    raise NoSuchSource(f"{name_of(path)} is {'no file and no folder' if os.path.lexists(path) else 'not there'}")


def id_of(path: Path) -> str:
    """The path as the id of an item: one line of text, without segments `..`, so that a URL can end with it."""
    return name_of(os.path.abspath(path) if ".." in path.parts else path.as_posix())


def find(places: Iterable[str], left_out: LeftOut) -> list[JobImage]:
    """The images at `places`, sorted and each once. `left_out` gets those that cannot be an item, and what is no image.

    Raises:
        NoSuchSource: nothing is there.
    """
    found: set[JobImage] = set()
    for place in places:
        for source in _at_address(place, left_out) if "://" in place else _at_path(Path(place), left_out):
            if reason := _refusal(source):
                left_out.add(Found(Path(source.at), reason, is_lost=True))
            else:
                found.add(source)
    return sorted(found)


def read(source: JobImage, max_bytes: int) -> bytes:
    """The encoded image, cut off after `max_bytes` + 1.

    Raises:
        FileNotFoundError, PermissionError, IsADirectoryError: this image cannot be had.
        OSError: its disk or store cannot be reached: nothing is known of the image.
    """
    if "://" not in source.at:
        with open(source.at, "rb") as file:
            return file.read(max_bytes + 1)
    store, path = _in_store(source.at)
    with store.open_input_stream(path) as stream:
        data: bytes = stream.read(max_bytes + 1)
    return data


def _refusal(source: JobImage) -> str:
    if len(source.id) > MAX_ID:
        return f"its path has {len(source.id)} characters, an id at most {MAX_ID}"
    try:
        source.at.encode()
    except UnicodeEncodeError:
        return "its path is no UTF-8"
    return ""


def _at_path(path: Path, left_out: LeftOut) -> Iterator[JobImage]:
    for image in images_at(path, left_out):
        yield JobImage(id_of(image), os.path.abspath(image))


def _at_address(address: str, left_out: LeftOut) -> Iterator[JobImage]:
    store, path = _in_store(address)
    from pyarrow import fs

    try:
        (there,) = store.get_file_info([path])
        if there.type == fs.FileType.NotFound:
            raise NoSuchSource(f"{address} is not there")
        one = there.type == fs.FileType.File
        entries = [there] if one else store.get_file_info(fs.FileSelector(path, recursive=True))
    except OSError as error:
        raise NoSuchSource(f"{address} cannot be read: {error}") from error
    for entry in entries:
        if entry.type != fs.FileType.File:
            continue
        at = address.rstrip("/") + entry.path.removeprefix(path.rstrip("/"))
        if one or entry.path.lower().endswith(_SUFFIXES):
            yield JobImage(name_of(at), at)
        else:
            left_out.add(Found(Path(at), _NOT_AN_IMAGE))


def _in_store(address: str) -> tuple[Any, str]:
    """The store of an address, and the path in it."""
    scheme, _, rest = address.partition("://")
    host, _, path = rest.partition("/")
    store, root = _store(f"{scheme}://{host}")
    return store, f"{root.rstrip('/')}/{path}".rstrip("/") if path else root


@lru_cache(maxsize=64)
def _store(address: str) -> tuple[Any, str]:
    """Regions, endpoints and keys come from the environment, as pyarrow reads it."""
    from pyarrow import fs

    try:
        store, root = fs.FileSystem.from_uri(address if not address.endswith("://") else f"{address}/")
    except (ValueError, OSError) as error:
        raise NoSuchSource(f"{address} is no address of an object store that pyarrow reads: {error}") from error
    return store, root
