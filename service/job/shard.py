"""One shard of a job: a Parquet file that `rankone index import` reads, and the list of its images that could not be used."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from rankone.model.errors import RankoneError
from rankone.model.files import sync
from rankone.service.job.plan import JobConflict, Plan

_KEY: Final = b"rankone.job"
_PARTIAL: Final = ".partial"


class NeedsPyarrow(RankoneError, ImportError):
    """pyarrow is not installed."""


@dataclass(frozen=True)
class Row:
    """An image's item."""

    id: str
    vector: npt.NDArray[np.float32]
    sha256: str
    thumbnail: bytes | None


@dataclass(frozen=True)
class Rejected:
    """An image that cannot be used, and why."""

    id: str
    reason: str


def file_of(out: Path, shard: int) -> Path:
    """Where a shard is, once it is done."""
    return out / f"part-{shard:06d}.parquet"


def rejected_of(out: Path, shard: int) -> Path:
    """Where the images of a shard are named that could not be used, if there were some."""
    return out / f"part-{shard:06d}.rejected.jsonl"


def missing(out: Path, plan: Plan) -> list[int]:
    """The shards that are not done.

    Raises:
        JobConflict: a file of another job is in the folder.
    """
    there = {entry.name for entry in os.scandir(out)}
    shards = []
    for shard in range(plan.num_shards):
        if (path := file_of(out, shard)).name not in there:
            shards.append(shard)
        elif _note(path) != _said(plan, shard):
            raise JobConflict(f"{path} is not of this job: move it away, or name another folder")
    return shards


def num_rejected(out: Path) -> int:
    """How many images of the job could not be used."""
    return sum(len(path.read_bytes().splitlines()) for path in out.glob("part-*.rejected.jsonl"))


def remove_partial(out: Path) -> None:
    """Removes what killed processes left of unfinished files."""
    for path in out.glob(f".*{_PARTIAL}"):
        path.unlink(missing_ok=True)


def write(out: Path, plan: Plan, shard: int, rows: Sequence[Row], rejected: Sequence[Rejected]) -> None:
    """Writes a shard, whole and on disk when this returns. The list of bad images is there before the shard is done.

    Raises:
        OSError: it cannot be written.
    """
    if rejected:
        lines = b"".join(orjson.dumps(asdict(one), option=orjson.OPT_APPEND_NEWLINE) for one in rejected)
        with _published(rejected_of(out, shard)) as partial:
            partial.write_bytes(lines)
    arrow = pyarrow()
    table = _table(plan, rows).replace_schema_metadata(
        {b"rankone": orjson.dumps(asdict(plan.spec)), _KEY: _said(plan, shard)}
    )
    with _published(file_of(out, shard)) as partial:
        arrow.parquet.write_table(table, partial)


def _table(plan: Plan, rows: Sequence[Row]) -> Any:
    """The columns of `rankone index export`."""
    arrow, element = pyarrow(), pyarrow().float16()
    flat = np.concatenate([row.vector for row in rows]) if rows else np.empty(0)
    vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(flat.astype(plan.spec.stored), element), plan.dim)
    text = arrow.string()
    return arrow.table(
        {
            "id": arrow.array([row.id for row in rows], text),
            "vector": vectors,
            "metadata": arrow.array(["{}"] * len(rows), text),
            "sha256": arrow.array([row.sha256 for row in rows], text),
            "thumbnail": arrow.array([row.thumbnail for row in rows], arrow.binary()),
        }
    )


def _said(plan: Plan, shard: int) -> bytes:
    """What the file of a shard says of itself."""
    return orjson.dumps({"shard": shard, **plan.model_dump()})


def _note(path: Path) -> bytes | None:
    arrow = pyarrow()
    try:
        note: bytes | None = (arrow.parquet.read_schema(path).metadata or {}).get(_KEY)
    except (arrow.ArrowInvalid, OSError) as error:
        raise JobConflict(f"{path} cannot be read: {error}; remove it, and it is made again") from error
    return note


@contextmanager
def _published(path: Path) -> Iterator[Path]:
    """A name of this process's own, renamed to `path` when the block ends: two actors may be at the same shard."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}{_PARTIAL}")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def pyarrow() -> Any:
    """Pyarrow with its Parquet.

    Raises:
        NeedsPyarrow: it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise NeedsPyarrow("a job writes Parquet, which needs pyarrow: pip install 'rankone[parquet]'") from error
    return pyarrow
