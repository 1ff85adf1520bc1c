"""One shard of a job: a Parquet file that `rankone index import` reads, and the list of its images that could not be used."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from rankone.service.job.plan import PARTIAL, JobConflict, Plan, published

_KEY: Final = b"rankone.job"


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
    for path in out.glob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)


def write(out: Path, plan: Plan, shard: int, rows: Sequence[Row], rejected: Sequence[Rejected]) -> None:
    """Writes a shard, whole and on disk when this returns. The list of bad images is there before the shard is done.

    Raises:
        OSError: it cannot be written.
    """
    if rejected:
        lines = b"".join(orjson.dumps(asdict(one), option=orjson.OPT_APPEND_NEWLINE) for one in rejected)
        with published(rejected_of(out, shard)) as partial:
            partial.write_bytes(lines)
    table = _table(plan, rows).replace_schema_metadata(
        {b"rankone": orjson.dumps(asdict(plan.spec)), _KEY: _said(plan, shard)}
    )
    with published(file_of(out, shard)) as partial:
        pq.write_table(table, partial)


def _table(plan: Plan, rows: Sequence[Row]) -> pa.Table:
    """The columns of `rankone index export`."""
    flat = np.concatenate([row.vector for row in rows]) if rows else np.empty(0)
    vectors = pa.array(flat.astype(plan.spec.stored), pa.float16())
    return pa.table(
        {
            "id": pa.array([row.id for row in rows], pa.string()),
            "vector": pa.FixedSizeListArray.from_arrays(vectors, plan.dim),
            "metadata": pa.array(["{}"] * len(rows), pa.string()),
            "sha256": pa.array([row.sha256 for row in rows], pa.string()),
            "thumbnail": pa.array([row.thumbnail for row in rows], pa.binary()),
        }
    )


def _said(plan: Plan, shard: int) -> bytes:
    """What the file of a shard says of itself."""
    return orjson.dumps({"shard": shard, **plan.model_dump()})


def _note(path: Path) -> bytes | None:
    try:
        return (pq.read_schema(path).metadata or {}).get(_KEY)
    except (pa.ArrowInvalid, OSError) as error:
        raise JobConflict(f"{path} cannot be read: {error}; remove it, and it is made again") from error
