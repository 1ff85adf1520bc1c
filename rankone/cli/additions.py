"""What `rankone add` sends: images under ids made of their paths, with metadata that is merged into what is there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import orjson

from rankone.cli.images import ImageFile
from rankone.cli.output import InputError
from rankone.client import Client, NewItem, ServiceError
from rankone.model.folders import name_of
from rankone.service.job.sources import MAX_ID, id_of

_AT_ONCE: Final = 16
_NOT_FOUND: Final = 404

Metadata = Mapping[str, Any]


def refusal() -> Callable[[Path], str]:
    """A function that says why an image cannot be added under its path, or nothing; it remembers the ids it has seen."""
    seen: set[str] = set()

    def why(path: Path) -> str:
        item_id = id_of(path)
        if len(item_id) > MAX_ID:
            return f"its path has {len(item_id)} characters, an id at most {MAX_ID}; give a path that is shorter"
        if item_id in seen:
            return "given twice; it is added once"
        seen.add(item_id)
        return ""

    return why


def read_metadata(file: Path) -> dict[str, Metadata]:
    """Metadata by id, from lines {"path": "photos/1.jpg", "metadata": {"year": 2020}}; "id" may stand for "path".

    Raises:
        InputError: the file or a line cannot be read, or two lines are of one image; the line is named.
    """
    found: dict[str, Metadata] = {}
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
    got = name_of(line[:80].decode(errors="replace"))
    raise InputError(f'{where}: expected {{"path": "photos/1.jpg", "metadata": {{"year": 2020}}}}, got {got}')


def new_items(
    images: Sequence[ImageFile], client: Client, index: str, given: Mapping[str, Metadata], *, label_from_folder: bool
) -> Iterator[NewItem]:
    """An item for each image, with what `client` knows of its metadata, but for the fields that are `given` by id.

    With `label_from_folder`, the name of an image's folder becomes its field `label`.
    """
    is_empty = client.count(index) == 0
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for start in range(0, len(images), _AT_ONCE):
            group = images[start : start + _AT_ONCE]
            ids = [id_of(image.path) for image in group]
            kept = [{}] * len(ids) if is_empty else pool.map(lambda item_id: _kept(client, item_id, index), ids)
            for image, item_id, before in zip(group, ids, kept, strict=True):
                label = name_of(Path(os.path.abspath(image.path)).parent.name)
                labelled = {"label": label} if label_from_folder else {}
                yield NewItem(image, id=item_id, metadata={**before, **labelled, **given.get(item_id, {})})


def _kept(client: Client, item_id: str, index: str) -> Metadata:
    try:
        return client.item(item_id, index).metadata
    except ServiceError as error:
        if error.status != _NOT_FOUND:
            raise
        return {}
