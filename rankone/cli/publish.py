"""`rankone index publish`: files of items become the next published version of an index, which services only read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.progress import Progress
from tyro.conf import Positional, arg

from rankone.cli.output import InputError
from rankone.index.source import LANCE, is_lance, lance

Place = Positional[Annotated[str, arg(metavar="lance:PLACE")]]
Name = Positional[Annotated[str, arg(metavar="INDEX")]]
Files = Positional[Annotated[tuple[Path, ...], arg(metavar="FILE")]]


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
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("publishing", total=None)
        made = lance("publish").publish(
            found, place.removeprefix(LANCE), name, lambda n: bar.advance(task, n), keep_days=keep_days
        )
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
