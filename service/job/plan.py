"""What a job embeds, with which bundle, in which shards: fixed when it begins, and kept in its folder."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from rankone.index import Spec
from rankone.model.errors import RankoneError
from rankone.model.files import make_folder, sync
from rankone.service.job.sources import JobImage

JOB: Final = "job.json"
IMAGES: Final = "images.jsonl"
PARTIAL: Final = ".partial"
_LOCK: Final = ".lock"

Tell = Callable[[int], None]
"""Is called with the number of images that are done since."""


class JobConflict(RankoneError, ValueError):
    """The folder belongs to another job, or another process is at this one."""


class Plan(BaseModel):
    """A job. Two of the same plan write the same files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fingerprint: str
    """Of the bundle."""
    dim: int
    """Of the vectors, which are float16."""
    thumbnails: bool
    """Whether small JPEGs are kept."""
    shard_size: int
    """Images of a shard; the last one has the rest."""
    num_images: int
    sha256: str
    """Of the list of images."""

    @property
    def num_shards(self) -> int:
        """How many files there will be."""
        return -(-self.num_images // self.shard_size)

    def size_of(self, shard: int) -> int:
        """How many images a shard has."""
        return min(self.shard_size, self.num_images - shard * self.shard_size)

    @property
    def spec(self) -> Spec:
        """Of an index that holds these vectors."""
        return Spec(self.fingerprint, self.dim, thumbnails=self.thumbnails)


def plan_of(images: Sequence[JobImage], *, fingerprint: str, dim: int, thumbnails: bool, shard_size: int) -> Plan:
    """The plan for these images, in their order."""
    digest = hashlib.sha256(b"".join(map(_line, images)))
    return Plan(
        fingerprint=fingerprint,
        dim=dim,
        thumbnails=thumbnails,
        shard_size=shard_size,
        num_images=len(images),
        sha256=digest.hexdigest(),
    )


@contextmanager
def begun(out: Path, plan: Plan, images: Sequence[JobImage]) -> Iterator[None]:
    """Writes the plan and the list of images, or checks that those of the folder are the same; no other process may.

    Raises:
        JobConflict: the folder belongs to another job, or another process is at it.
        OSError: the folder cannot be written.
    """
    make_folder(out)
    with (out / _LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise JobConflict(f"another process is at the job in {out}") from error
        if (out / JOB).exists():
            _check_same(out, plan)
        else:
            with published(out / IMAGES) as partial, partial.open("wb") as file:
                file.writelines(map(_line, images))
            with published(out / JOB) as partial:  # last: with it, the job has begun
                partial.write_text(plan.model_dump_json(indent=1), "utf-8")
        yield


def images_of(out: Path, plan: Plan, shards: Sequence[int]) -> Iterator[tuple[int, list[JobImage]]]:
    """The shards among `shards`, which are sorted, with their images, from the folder's list."""
    wanted = set(shards)
    with (out / IMAGES).open("rb") as lines:
        for shard in range(plan.num_shards):
            part = list(islice(lines, plan.shard_size))
            if shard in wanted:
                yield shard, [JobImage(**orjson.loads(line)) for line in part]


@contextmanager
def published(path: Path) -> Iterator[Path]:
    """A name of this process's own, renamed to `path` when the block ends: two actors may be at the same shard."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}{PARTIAL}")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _check_same(out: Path, plan: Plan) -> None:
    try:
        there = Plan.model_validate_json((out / JOB).read_bytes())
    except ValidationError as error:
        raise JobConflict(f"{out / JOB} cannot be read: {error.errors()[0]['msg']}; name another folder") from error
    if there == plan:
        return
    names = [name for name in Plan.model_fields if getattr(there, name) != getattr(plan, name)]
    if names[-1] == "sha256":
        names = [f"images ({there.num_images:,} then, {plan.num_images:,} now)", *names[: -1 - ("num_images" in names)]]
    raise JobConflict(
        f"{out} holds a job that was begun with other {' and '.join(names)}: give the same again, or name another folder"
    )


def _line(image: JobImage) -> bytes:
    return orjson.dumps({"id": image.id, "at": image.at}, option=orjson.OPT_APPEND_NEWLINE)
