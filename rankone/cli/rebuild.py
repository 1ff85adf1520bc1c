"""`rankone index rebuild`: an index is embedded again with another model, from the original files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Final

import orjson
from rich.console import Console
from rich.progress import Progress
from tyro.conf import Positional, arg

from rankone.client import Client
from rankone.index.source import reading, source_of
from rankone.model.errors import RankoneError
from rankone.model.folders import OTHER, UNREAD, walk

Folder = Positional[Annotated[str, arg(metavar="FOLDER")]]
Name = Positional[Annotated[str, arg(metavar="INDEX")]]

_PER_REQUEST: Final = 16


class OriginalsMissing(RankoneError, ValueError):
    """An index cannot be embedded again without the files it was made of."""


def rebuild(folder: Folder, name: Name, images: Path, into: str, url: str | None = None) -> None:
    """Embeds an index again with the model that a running service serves, from the original files, into another index.

    Originals are found by their sha256. If one is missing, or an item was added without its file, nothing is done.

    Args:
        folder: of the indexes.
        name: of the index to embed again.
        images: folder that holds the original files.
        into: index of the service to fill, which must be there.
        url: where the service is; RANKONE_URL, or else http://127.0.0.1:8000, if not given.
    """
    named = ("", OTHER, UNREAD)  # an image given by itself may have been added under any name
    files = {
        _sha256(found.path): found.path for found in walk(images) if found.reason in named and found.path.is_file()
    }
    with reading(source_of(folder, name)) as (reader, _):
        items = list(reader.summaries())  # all at once, as a snapshot held for hours would make the service's log grow
    missing = [item.id for item in items if item.sha256 not in files]
    if missing:
        some = ", ".join(missing[:5])
        raise OriginalsMissing(f"the originals of {len(missing):,} items are not in {images}: {some}; nothing was done")
    with Client(url) as client, Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("embedding", total=len(items))
        for start in range(0, len(items), _PER_REQUEST):
            _, ids, metadata, sums, _ = zip(*items[start : start + _PER_REQUEST], strict=True)
            client.add([files[sha256] for sha256 in sums], ids, list(map(orjson.loads, metadata)), index=into)
            bar.advance(task, len(ids))
    print(f"{len(items):,} items in the index {into}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
