"""What `rankone add` sends: images under ids made of their paths, with metadata that is merged into what is there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import orjson

from rankone.cli.images import ImageFile
from rankone.cli.output import InputError
from rankone.client import Client, NewItem, ServiceError
from rankone.model.folders import name_of

_MAX_ID: Final = 255
_AT_ONCE: Final = 16
_NOT_FOUND: Final = 404

Metadata = Mapping[str, Any]


def id_of(path: Path) -> str:
    """The path as the id of an item: one line of text, without segments `..`, so that a URL can end with it."""
    return name_of(os.path.abspath(path) if ".." in path.parts else path.as_posix())


def refusal() -> Callable[[Path], str]:
    """A function that says why an image cannot be added under its path, or nothing; it remembers the ids it has seen."""
    seen: set[str] = set()

    def why(path: Path) -> str:
        item_id = id_of(path)
        if len(item_id) > _MAX_ID:
            return f"its path has {len(item_id)} characters, an id at most {_MAX_ID}; give a path that is shorter"
        if item_id in seen:
            return "given twice; it is added once"
        seen.add(item_id)
        return ""

    return why


def read_metadata(file: Path | None) -> dict[str, Metadata]:
    """Metadata by id, from lines {"path": "photos/1.jpg", "metadata": {"year": 2020}}; "id" may stand for "path".

    Raises:
        InputError: the file or a line cannot be read, or two lines are of one image; the line is named.
    """
    found: dict[str, Metadata] = {}
    if file is None:
        return found
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"--metadata {name_of(file)}: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"--metadata {name_of(file)}, line {number}"
            item_id, metadata = _entry(line, where)
            if item_id in found:
                raise InputError(f"{where}: {item_id} is there twice")
            found[item_id] = metadata
    return found


def _entry(line: bytes, where: str) -> tuple[str, Metadata]:
    try:
        match orjson.loads(line):
            case {"path": str(path), "metadata": dict(metadata), **rest} if not rest:
                return id_of(Path(path)), metadata
            case {"id": str(item_id), "metadata": dict(metadata), **rest} if rest.keys() <= {"sha256"}:
                return item_id, metadata
    except orjson.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON ({error})") from error
    raise InputError(f'{where}: expected {{"path": "photos/1.jpg", "metadata": {{"year": 2020}}}}, got {_start(line)}')


def _start(line: bytes) -> str:
    return name_of(line[:80].decode(errors="replace"))


@dataclass(frozen=True, kw_only=True)
class Additions:
    """Makes the items to add to an index."""

    index: str
    metadata: Mapping[str, Metadata] = field(default_factory=dict)
    """By id; fields that it does not name are kept."""
    label_from_folder: bool = False
    """Whether the name of an image's folder becomes its field `label`."""

    def items(self, images: Iterable[ImageFile], client: Client) -> Iterator[NewItem]:
        """An item for each image, with what `client` knows of its metadata."""
        images = iter(images)
        is_empty = client.count(self.index) == 0
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while group := list(islice(images, _AT_ONCE)):
                ids = [id_of(image.path) for image in group]
                kept = [{}] * len(ids) if is_empty else pool.map(lambda item_id: self._kept(client, item_id), ids)
                for image, item_id, before in zip(group, ids, kept, strict=True):
                    yield NewItem(image, id=item_id, metadata={**before, **self._given(image.path, item_id)})

    def _given(self, path: Path, item_id: str) -> Metadata:
        label = {"label": name_of(Path(os.path.abspath(path)).parent.name)} if self.label_from_folder else {}
        return {**label, **self.metadata.get(item_id, {})}

    def _kept(self, client: Client, item_id: str) -> Metadata:
        try:
            return client.item(item_id, self.index).metadata
        except ServiceError as error:
            if error.status != _NOT_FOUND:
                raise
            return {}
