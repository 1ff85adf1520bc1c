"""`rankone embed --bundle`: a job that embeds images without a service, in this process or on a Ray cluster."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import PositiveInt
from tyro.conf import arg

from rankone.cli.errors import say
from rankone.cli.output import InputError, progress


@dataclass(frozen=True)
class JobOptions:
    """Images embedded without a service."""

    bundle: Path | None = None
    """embed by this bundle, without a service, into Parquet files that `rankone index import` reads. If it was killed, the
    same command resumes. RANKONE_DEVICE, RANKONE_THREADS and so on are read as by `rankone serve`."""
    cluster: str | None = None
    """with --bundle: the address of a Ray cluster to run on: auto, 10.0.0.1:6379 or ray://10.0.0.1:10001. Bundle, images
    and the folder must be in the same place on every machine."""
    listed: Annotated[Path | None, arg(name="list")] = None
    """with --bundle: a file with more images, folders or addresses, one a line."""
    shard: PositiveInt = 1000
    """with --bundle: images of one file."""


def embed(places: Sequence[str], out: Path | None, dim: int | None, job: JobOptions) -> None:
    """Runs the job. Ends with status 1 if some images could not be used.

    Raises:
        InputError: there are no images, or no folder to write to.
        NoSuchSource, JobConflict, JobFailed, BundleError, EngineError: see `rankone.service.job`.
    """
    from rankone.model.folders import LeftOut
    from rankone.service.environment import read_environment
    from rankone.service.job import sources
    from rankone.service.job.run import run
    from rankone.service.settings import Settings

    if out is None:
        raise InputError("a job writes a folder of Parquet files: name it (--out)")
    assert job.bundle is not None
    environment = read_environment(Settings, without={"bundle", "bundles"})
    settings = Settings(**{**environment.model_dump(exclude_unset=True), "bundle": job.bundle})
    left_out = LeftOut()
    images = sources.find([*places, *(sources.read_list(job.listed) if job.listed else ())], left_out)
    for line in left_out.lines():
        say(f"left out: {line}")
    if not images:
        raise InputError("no images: give files such as JPEG, PNG or WebP, folders or addresses that hold some")
    with progress("images", len(images)) as tell:
        done = run(images, out, settings, dim=dim, shard_size=job.shard, tell=tell, cluster=job.cluster)
    lost = done.num_rejected + len(left_out.lost)
    print(f"{done.num_images - done.num_rejected:,} images in {done.num_shards:,} files in {out}")
    if lost:
        sys.exit(f"rankone: {lost:,} images could not be used: see {out / 'part-*.rejected.jsonl'}, and above")
