"""`rankone index create`, `import`, `publish` and `rebuild`: what makes an index and fills it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
from tyro.conf import Positional, arg

from rankone.cli.images import HERE, At
from rankone.cli.output import InputError, progress
from rankone.client import Client
from rankone.index import Dtype, Kind, Spec, check_name
from rankone.index.database import SUFFIX
from rankone.index.source import LANCE, is_lance, is_postgres, lance, reading, source_of
from rankone.index.transfer import load_items
from rankone.model.bundle import open_bundle
from rankone.model.errors import RankoneError
from rankone.model.files import sha256_of
from rankone.model.folders import OTHER, UNREAD, walk

Folder = Positional[Annotated[str, arg(metavar="FOLDER")]]
"""Or a database."""
Name = Positional[Annotated[str, arg(metavar="INDEX")]]
File = Positional[Annotated[Path, arg(metavar="FILE")]]
Place = Positional[Annotated[str, arg(metavar="lance:PLACE")]]
Files = Positional[Annotated[tuple[Path, ...], arg(metavar="FILE")]]

_PER_REQUEST: Final = 16


class OriginalsMissing(RankoneError, ValueError):
    """An index cannot be embedded again without the files it was made of."""


def create(
    name: Name,
    dim: int | None = None,
    kind: Kind = "exact",
    dtype: Dtype = "float16",
    thumbnails: bool = False,
    service: At = HERE,
) -> None:
    """Makes an index in a running service, if there is none of that name.

    Args:
        name: of the index.
        dim: numbers of the short embeddings to keep; full embeddings if not given.
        kind: `exact`, or `compact`.
        dtype: of the vectors on disk.
        thumbnails: keep a small JPEG of each image.
        service: to ask.
    """
    options: dict[str, Any] = {"kind": kind, "dtype": dtype, "thumbnails": thumbnails}
    if dim is not None:
        options["dim"] = dim
    with Client(service.url, key=service.key) as client:
        made = client.create_index(name, **options)
    print(f"index {made.name}: {made.properties['dim']:,} numbers an item, {made.count:,} items")


def import_items(folder: Folder, name: Name, source: File, bundle: Path | None = None, dim: int | None = None) -> None:
    """Adds the items of an exported file to an index, created if it is missing. Needs the service stopped; can be repeated.

    Args:
        folder: of the indexes.
        name: of the index.
        source: NAME.npy with NAME.jsonl beside it, or NAME.parquet.
        bundle: whose embeddings these are, where the file does not say.
        dim: with --bundle, numbers of the short embeddings in the file; full ones if not given.
    """
    check_name(name)
    spec = None
    if bundle is not None:
        opened = open_bundle(bundle)
        spec = Spec(opened.fingerprint, dim or opened.manifest.dim)
    is_elsewhere = is_postgres(folder) or is_lance(folder)
    target = source_of(folder, name) if is_elsewhere else Path(folder) / f"{name}{SUFFIX}"
    with progress("adding") as tell:
        added = load_items(source, target, spec, tell)
    print(f"{added:,} items added")


def publish(place: Place, name: Name, files: Files, keep_days: float = 7) -> None:
    """Makes the items of Parquet files the published version of an index. Works beside services; can be run again.

    Run an interrupted command again, and it continues. Until it has ended, services read the version before. New files at the
    end of the list are added; the others are not written again. The version holds only what is in the files.

    Args:
        place: lance:FOLDER or lance:s3://bucket/path, as services have it in RANKONE_INDEX.
        name: of the index.
        files: Parquet files of `rankone index export`, or folders of a job (`rankone embed --bundle`).
        keep_days: days after which a version is removed that is not published any more.
    """
    if not is_lance(place):
        raise InputError(f"{place} is not where versions are published: name lance:FOLDER or lance:s3://bucket/path")
    found = [file for path in files for file in _files_in(path)]
    with progress("publishing") as tell:
        made = lance("publish").publish(found, place.removeprefix(LANCE), name, tell, keep_days=keep_days)
    print(f"{made.count:,} items of {name} are published in version {made.version}")


def _files_in(path: Path) -> Sequence[Path]:
    """The file, or those of a folder in order.

    Raises:
        InputError: there are none, or a job has not finished.
    """
    if not path.is_dir():
        return [path]
    from rankone.service.job import plan, shard

    if (path / plan.JOB).exists():
        wanted = plan.Plan.model_validate_json((path / plan.JOB).read_bytes())
        if missing := shard.missing(path, wanted):
            raise InputError(f"the job in {path} has not finished: {len(missing):,} files are missing; run it again")
        return [shard.file_of(path, number) for number in range(wanted.num_shards)]
    if not (found := sorted(path.glob("*.parquet"))):
        raise InputError(f"there are no Parquet files in {path}")
    return found


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
    with Client(url) as client, progress("embedding", len(items)) as tell:
        for start in range(0, len(items), _PER_REQUEST):
            _, ids, metadata, sums, _ = zip(*items[start : start + _PER_REQUEST], strict=True)
            client.add([files[sha256] for sha256 in sums], ids, list(map(orjson.loads, metadata)), index=into)
            tell(len(ids))
    print(f"{len(items):,} items in the index {into}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return sha256_of(file)
