"""`rankone index`: what is done to indexes on disk. What only reads works beside a running service; what writes does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import orjson
import tyro
from pydantic import PositiveInt
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from rankone.cli.filling import File, Folder, Name, create, import_items, publish, rebuild
from rankone.cli.output import progress
from rankone.index import IndexProblem, check_name, loss
from rankone.index.backup import Tell, TellPages, back_up, file_of
from rankone.index.backup import restore as restore_backup
from rankone.index.database import SUFFIX
from rankone.index.errors import IndexPublished
from rankone.index.mapmaking import MOST, make_map
from rankone.index.offline import find_duplicates, measure_recall
from rankone.index.source import Source, damaged_rows, is_lance, is_postgres, names_in, reading, source_of
from rankone.index.transfer import export as export_items

console = Console(highlight=False)


def index(arguments: list[str]) -> None:
    """See the functions below."""
    commands: dict[str, Callable[..., None]] = {
        "create": create,
        "list": list_indexes,
        "verify": verify,
        "accept": accept,
        "duplicates": duplicates,
        "map": map_items,
        "check": check,
        "export": export,
        "import": import_items,
        "publish": publish,
        "backup": backup,
        "restore": restore,
        "rebuild": rebuild,
    }
    description = (
        "Indexes on disk. FOLDER is the service's --data, or its --index: postgresql://... or lance:.... list, verify, accept, "
        "duplicates, map, export, publish and backup work beside a running service; check, import and restore need it stopped, "
        "but in PostgreSQL and Lance; create and rebuild go through it."
    )
    tyro.extras.subcommand_cli_from_dict(commands, prog="rankone index", description=description, args=arguments)


def list_indexes(folder: Folder) -> None:
    """Every index of a folder, with what it is. Works beside a running service.

    Args:
        folder: of the indexes.
    """
    table = Table("index", box=None, pad_edge=False)
    for column in ("items", "dim", "kind", "type", "model"):
        table.add_column(column, justify="right" if column in ("items", "dim") else "left")
    for name in names_in(folder):
        try:
            with reading(source_of(folder, name)) as (reader, spec):
                about = (f"{reader.count():,}", f"{spec.dim:,}", spec.kind, spec.dtype, spec.fingerprint[:16])
                table.add_row(name, *about)
        except IndexProblem as problem:
            table.add_row(name, "", "", "", "", escape(str(problem)))
    console.print(table)


def verify(folder: Folder, name: Name = "default") -> None:
    """Looks at the log, every page of the file and the checksum of every row. Works beside a running service.

    Ends with status 0 if all is well, 1 if rows are damaged, which are named, 2 if changes are lost or the file is not whole.

    Args:
        folder: of the indexes.
        name: of the index.
    """
    source = source_of(folder, name)
    lost = loss.loss(source) if isinstance(source, Path) else None
    if lost is not None:
        print(f"lost: {lost}")
    with _progress(source, "checking") as tell:
        damaged = damaged_rows(source, tell)
    for item_id in damaged:
        print(f"damaged: {item_id}")
    print(f"{len(damaged):,} rows are damaged" if damaged else "every row is whole")
    if damaged or lost is not None:
        raise SystemExit(1 if lost is None else 2)


def accept(folder: Folder, name: Name = "default") -> None:
    """Ends the report that changes of an index are lost. The copy of its damaged log stays. Works beside a running service.

    Args:
        folder: of the indexes.
        name: of the index.
    """
    lost = loss.accept(_file_in(folder, name, "PostgreSQL reports its own losses, in its log"))
    print("nothing was reported as lost" if lost is None else f"accepted: {lost}")


def duplicates(folder: Folder, name: Name = "default", min_score: float = 0.98, limit: int = 1000) -> None:
    """Which images are there twice, as JSON lines: first the same file, by sha256, then pairs that are near, best first.

    Works beside a running service.

    Args:
        folder: of the indexes.
        name: of the index.
        min_score: the least cosine of a pair that is near.
        limit: pairs that are near to print, the best.
    """
    source = source_of(folder, name)
    with _progress(source, "comparing") as tell:
        found = find_duplicates(source, min_score, limit, tell)
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
    source = source_of(folder, name)
    with _progress(source, "reading") as tell:
        made = make_map(source, tell, most)
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
    source = source_of(folder, name)
    with _progress(source, "searching") as tell:
        recall = measure_recall(source, queries, 10, tell)
    print(f"recall@10 {recall:.4f}")


def export(folder: Folder, name: Name, out: File) -> None:
    """Writes all items to a file. Works beside a running service; resumes an interrupted .npy file.

    Args:
        folder: of the indexes.
        name: of the index.
        out: NAME.npy, beside which NAME.jsonl and NAME.json are written, or NAME.parquet.
    """
    source = source_of(folder, name)
    with _progress(source, "writing") as tell:
        count = export_items(source, out, tell)
    print(f"{count:,} items in {out}")


def backup(folder: Folder, name: Name, out: File) -> None:
    """Copies one state of an index to a file, checks every row of it, and only then gives it its name.

    Works beside a running service.

    Args:
        folder: of the indexes.
        name: of the index.
        out: file to write; must not exist.
    """
    how = f"pg_dump --format=custom --schema=rankone --file={out} URL"
    file = _file_in(folder, name, f"PostgreSQL backs up all indexes of a database at once: {how}")
    with _pages("copying") as tell:
        count = back_up(file, out, tell)
    print(f"{count:,} items in {out}")


def restore(folder: Folder, name: Name, source: File) -> None:
    """Makes an index of a backup. Needs the service stopped, and no index of that name.

    Args:
        folder: of the indexes.
        name: of the index to make.
        source: the backup.
    """
    check_name(name)
    if is_lance(folder):
        raise IndexPublished
    if is_postgres(folder):
        raise IndexProblem(f"PostgreSQL restores all indexes of a database at once: pg_restore --dbname=URL {source}")
    with _pages("copying") as tell:
        count = restore_backup(source, Path(folder) / f"{name}{SUFFIX}", tell)
    print(f"{count:,} items in the index {name}")


def _file_in(folder: str, name: str, otherwise: str) -> Path:
    """The file of an index. Raises IndexProblem, which says what to do otherwise, if it is in a database or published."""
    if is_lance(folder):
        raise IndexPublished
    if is_postgres(folder):
        raise IndexProblem(otherwise)
    return file_of(Path(folder), name)


def _progress(source: Source, doing: str) -> AbstractContextManager[Tell]:
    """A bar of all items of an index."""
    with reading(source) as (reader, _):
        return progress(doing, reader.count())


@contextmanager
def _pages(doing: str) -> Iterator[TellPages]:
    """A bar of pages."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda left, total: bar.update(task, completed=total - left, total=total)
