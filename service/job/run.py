"""A job from its images to its files: in this process, or on a Ray cluster. What is done already is left as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rankone.model.bundle import open_bundle
from rankone.service.errors import Problem
from rankone.service.job import shard
from rankone.service.job.embedder import Embedder, JobFailed
from rankone.service.job.plan import Plan, Tell, begun, images_of, plan_of
from rankone.service.job.sources import JobImage
from rankone.service.routes.checks import check_dim
from rankone.service.settings import Settings


@dataclass(frozen=True)
class Done:
    """What a job came to."""

    num_images: int
    num_rejected: int
    num_shards: int


def run(
    images: Sequence[JobImage],
    out: Path,
    settings: Settings,
    *,
    dim: int | None = None,
    shard_size: int = 1000,
    tell: Tell,
    cluster: str | None = None,
) -> Done:
    """Embeds the images by the bundle of the settings into files of `out`, here or on the Ray cluster of that address.

    Raises:
        BundleError, EngineError, DecodersFailed: the bundle cannot run.
        JobConflict: `out` belongs to another job, or another process is at it.
        JobFailed: it ended before all images were embedded.
        OSError: the folder cannot be written, or a disk or store of images cannot be reached.
    """
    bundle = open_bundle(settings.bundle)
    try:
        length = check_dim(dim, bundle)
    except Problem as problem:
        raise JobFailed(problem.detail) from None
    plan = plan_of(
        images, fingerprint=bundle.fingerprint, dim=length, thumbnails=settings.thumbnails, shard_size=shard_size
    )
    with begun(out, plan, images):
        shard.remove_partial(out)
        missing = shard.missing(out, plan)
        tell(plan.num_images - sum(plan.size_of(number) for number in missing))
        if missing:
            if cluster is None:
                here(out, plan, settings, missing, tell)
            else:
                from rankone.service.job import on_ray

                on_ray.there(cluster, out, plan, settings, missing, tell)
        if left := shard.missing(out, plan):
            raise JobFailed(
                f"{len(left):,} of {plan.num_shards:,} shards are not in {out}: it must be the same folder on every machine"
            )
        return Done(plan.num_images, shard.num_rejected(out), plan.num_shards)


def here(out: Path, plan: Plan, settings: Settings, shards: Sequence[int], tell: Tell) -> None:
    """Writes the shards one after the other, in this process and its decoders."""
    with Embedder(settings, plan.dim, thumbnails=plan.thumbnails) as embedder:
        for number, images in images_of(out, plan, shards):
            shard.write(out, plan, number, *embedder.embed(images))
            tell(len(images))
