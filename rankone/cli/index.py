"""`rankone index`: what is done to indexes on disk. What only reads works beside a running service; what writes does not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import tyro
from pydantic import PositiveInt
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from tyro.conf import Positional, arg

from rankone.cli.bars import pages, progress
from rankone.cli.images import Service
from rankone.client import Client
from rankone.index import Dtype, IndexProblem, Kind, Spec, check_name
from rankone.index.backup import back_up, damaged_rows, file_of, reading
from rankone.index.backup import restore as restore_backup
from rankone.index.database import SUFFIX
from rankone.index.map import MOST, make_map
from rankone.index.offline import find_duplicates, measure_recall
from rankone.index.transfer import export as export_items
from rankone.index.transfer import load_items
from rankone.model.bundle import open_bundle
from rankone.model.errors import RankoneError
from rankone.model.folders import OTHER, UNREAD, walk

Folder = Positional[Annotated[Path, arg(metavar="FOLDER")]]
Name = Positional[Annotated[str, arg(metavar="INDEX")]]
File = Positional[Annotated[Path, arg(metavar="FILE")]]

_PER_REQUEST: Final = 16
_HERE: Final = Service()
console = Console(highlight=False)


class OriginalsMissing(RankoneError, ValueError):
    """An index cannot be embedded again without the files it was made of."""


def index(arguments: list[str]) -> None:
    """See the functions below."""
    commands: dict[str, Callable[..., None]] = {
        "create": create,
        "list": list_indexes,
        "verify": verify,
        "duplicates": duplicates,
        "map": map_items,
        "check": check,
        "export": export,
        "import": import_items,
        "backup": backup,
        "restore": restore,
        "rebuild": rebuild,
    }
    description = (
        "Indexes on disk. FOLDER is the service's --data. list, verify, duplicates, map, export and backup work beside a "
        "running service; check, import and restore need it stopped; create and rebuild go through it."
    )
    tyro.extras.subcommand_cli_from_dict(commands, prog="rankone index", description=description, args=arguments)


def create(
    name: Name,
    dim: int | None = None,
    kind: Kind = "exact",
    dtype: Dtype = "float16",
    thumbnails: bool = False,
    service: Annotated[Service, arg(name="")] = _HERE,
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


def list_indexes(folder: Folder) -> None:
    """Every index of a folder, with what it is. Works beside a running service.

    Args:
        folder: of the indexes.
    """
    table = Table("index", box=None, pad_edge=False)
    for column in ("items", "dim", "kind", "type", "model"):
        table.add_column(column, justify="right" if column in ("items", "dim") else "left")
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            with reading(path) as (reader, spec):
                about = (f"{reader.count():,}", f"{spec.dim:,}", spec.kind, spec.dtype, spec.fingerprint[:16])
                table.add_row(path.stem, *about)
        except IndexProblem as problem:
            table.add_row(path.stem, "", "", "", "", escape(str(problem)))
    console.print(table)


def verify(folder: Folder, name: Name = "default") -> None:
    """Looks at every page of the file and the checksum of every row. Works beside a running service.

    Ends with status 0 if all is well, 1 if rows are damaged, which are named, 2 if the file is not whole.

    Args:
        folder: of the indexes.
        name: of the index.
    """
    path = file_of(folder, name)
    with progress(path, "checking") as tell:
        damaged = damaged_rows(path, tell)
    for item_id in damaged:
        print(f"damaged: {item_id}")
    print(f"{len(damaged):,} rows are damaged" if damaged else "every row is whole")
    if damaged:
        raise SystemExit(1)


def duplicates(folder: Folder, name: Name = "default", min_score: float = 0.98, limit: int = 1000) -> None:
    """Which images are there twice, as JSON lines: first the same file, by sha256, then pairs that are near, best first.

    Works beside a running service.

    Args:
        folder: of the indexes.
        name: of the index.
        min_score: the least cosine of a pair that is near.
        limit: pairs that are near to print, the best.
    """
    path = file_of(folder, name)
    with progress(path, "comparing") as tell:
        found = find_duplicates(path, min_score, limit, tell)
    for ids in found.same:
        print(orjson.dumps({"same": ids}).decode())
    for score, *ids in found.near:
        print(orjson.dumps({"near": ids, "score": round(score, 6)}).decode())
    if found.left_out:
        Console(stderr=True).print(f"{found.left_out:,} more pairs were found; raise --limit or --min-score")


def map_items(folder: Folder, name: Name = "default", most: PositiveInt = MOST) -> None:
    """Makes the map of an index that the page shows: each item a point, near those that resemble it. Works beside a service.

    The two axes are the principal components of the vectors. The map is kept in the folder; make it again when much has
    changed.

    Args:
        folder: of the indexes.
        name: of the index.
        most: points of the map; of more items, so many are drawn, always the same ones.
    """
    path = file_of(folder, name)
    with progress(path, "reading") as tell:
        made = make_map(path, tell, most)
    drawn = "" if len(made.ids) == made.count else f", drawn from {made.count:,}"
    shares = " + ".join(f"{100 * share:.1f} %" for share in made.shares)
    print(f"{len(made.ids):,} points{drawn}; the axes hold {shares} of the variance")


def check(folder: Folder, name: Name = "default", queries: int = 100) -> None:
    """Measures recall@10 of the index against exact search, and keeps it for GET /indexes/{index}. Needs the service stopped.

    Args:
        folder: of the indexes.
        name: of the index.
        queries: items to search for, drawn from the index.
    """
    path = file_of(folder, name)
    with progress(path, "searching") as tell:
        recall = measure_recall(path, queries, 10, tell)
    print(f"recall@10 {recall:.4f}")


def export(folder: Folder, name: Name, out: File) -> None:
    """Writes all items to a file. Works beside a running service; goes on where a .npy file was broken off.

    Args:
        folder: of the indexes.
        name: of the index.
        out: NAME.npy, beside which NAME.jsonl and NAME.json are written, or NAME.parquet.
    """
    path = file_of(folder, name)
    with progress(path, "writing") as tell:
        count = export_items(path, out, tell)
    print(f"{count:,} items in {out}")


def import_items(folder: Folder, name: Name, source: File, bundle: Path | None = None, dim: int | None = None) -> None:
    """Adds the items of an exported file to an index, made if it is not there. Needs the service stopped; can be run again.

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
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("adding", total=None)
        added = load_items(source, folder / f"{name}{SUFFIX}", spec, lambda count: bar.advance(task, count))
    print(f"{added:,} items added")


def backup(folder: Folder, name: Name, out: File) -> None:
    """Copies one state of an index to a file, checks every row of it, and only then gives it its name.

    Works beside a running service.

    Args:
        folder: of the indexes.
        name: of the index.
        out: file to write; must not exist.
    """
    with pages("copying") as tell:
        count = back_up(file_of(folder, name), out, tell)
    print(f"{count:,} items in {out}")


def restore(folder: Folder, name: Name, source: File) -> None:
    """Makes an index of a backup. Needs the service stopped, and no index of that name.

    Args:
        folder: of the indexes.
        name: of the index to make.
        source: the backup.
    """
    check_name(name)
    with pages("copying") as tell:
        count = restore_backup(source, folder / f"{name}{SUFFIX}", tell)
    print(f"{count:,} items in the index {name}")


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
    with reading(file_of(folder, name)) as (reader, _):
        items = reader.origins()  # all at once, as a snapshot held for hours would make the service's log grow
    missing = [item_id for item_id, sha256, _ in items if sha256 not in files]
    if missing:
        some = ", ".join(missing[:5])
        raise OriginalsMissing(f"the originals of {len(missing):,} items are not in {images}: {some}; nothing was done")
    with Client(url) as client, Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("embedding", total=len(items))
        for start in range(0, len(items), _PER_REQUEST):
            ids, sums, metadata = zip(*items[start : start + _PER_REQUEST], strict=True)
            client.add([files[sha256] for sha256 in sums], ids, list(map(orjson.loads, metadata)), index=into)
            bar.advance(task, len(ids))
    print(f"{len(items):,} items in the index {into}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
