"""The shards of a job on the actors of a Ray cluster, by Ray Data. Ray distributes them and starts again what dies."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final

import orjson
import ray
import ray.data
from ray.exceptions import RayError

from rankone.service.job import shard
from rankone.service.job.embedder import Embedder, JobFailed
from rankone.service.job.plan import Plan, Tell, images_of
from rankone.service.job.sources import JobImage
from rankone.service.settings import Settings

_MAX_BLOCKS: Final = 10_000
_POLL_S: Final = 2.0


def there(address: str, out: Path, plan: Plan, settings: Settings, shards: Sequence[int], tell: Tell) -> None:
    """Writes the shards on the cluster at `address`, by as many actors as it has processors for, each with its own engine.

    Raises:
        JobFailed: the cluster cannot be reached, or an actor failed.
    """
    with redirect_stdout(sys.stderr):  # Ray prints which processes died to where only our result belongs
        _connect(address)
        try:
            _check_fits(settings, ray.nodes())  # type: ignore[no-untyped-call]
            driving = _drive.remote(str(out.absolute()), plan.model_dump(), _told(settings), [*shards])
            _watch(out, plan, shards, tell, lambda: bool(ray.wait([driving], timeout=_POLL_S)[0]))
            ray.get(driving)
        except RayError as error:
            raise JobFailed(f"{_reason(error)}; the same command resumes it") from error
        finally:
            ray.shutdown()


class Actor:
    """An engine in a process of Ray Data, which writes one shard after the other."""

    def __init__(self, out: str, plan: dict[str, Any], settings: dict[str, Any]) -> None:
        self._out, self._plan = Path(out).absolute(), Plan(**plan)
        self._embedder = Embedder(Settings(**settings), self._plan.dim, thumbnails=self._plan.thumbnails)
        self._embedder.__enter__()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Writes the shards of a batch, of which there is one; only names go in and only its number comes out."""
        (number,), (names,) = batch["shard"], batch["images"]
        images = [JobImage(*entry) for entry in orjson.loads(names)]
        if not shard.file_of(self._out, int(number)).exists():  # or an actor that died had written it
            shard.write(self._out, self._plan, int(number), *self._embedder.embed(images))
        return {"shard": batch["shard"]}


def _connect(address: str) -> None:
    try:
        ray.init(address, logging_level=logging.WARNING, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise JobFailed(f"no Ray cluster answers at {address}: {reason}") from error


def _told(settings: Settings) -> dict[str, Any]:
    """The settings that the actors get. Those that come from this machine's processors are named, as theirs may differ."""
    return settings.model_dump(mode="json", exclude_defaults=True) | {
        "bundle": str(settings.bundle.absolute()),
        "threads": settings.threads,
        "workers": settings.workers,
    }


def _check_fits(settings: Settings, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Raises JobFailed if no machine has what an actor reserves: Ray would wait for one for ever."""
    wants = {"CPU": settings.threads, "GPU": int(settings.device == "cuda")}
    there = [node["Resources"] for node in nodes if node["Alive"]]
    if not any(all(has.get(name, 0) >= count for name, count in wants.items()) for has in there):
        most = ", ".join(f"{has.get('CPU', 0):g} and {has.get('GPU', 0):g}" for has in there) or "none"
        raise JobFailed(
            f"no machine of the cluster has {wants['CPU']} processors and {wants['GPU']} GPUs for an actor (RANKONE_THREADS, "
            f"RANKONE_DEVICE); its machines have: {most}"
        )


@ray.remote(num_cpus=0, max_retries=-1)
def _drive(out: str, plan: dict[str, Any], told: dict[str, Any], shards: list[int]) -> None:
    """Runs on the cluster, as Ray Data does not run through ray://, and so that it outlives the node that it began on."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    settings, whole = Settings(**told), Plan(**plan)
    rows = [
        {"shard": number, "images": orjson.dumps([(image.id, image.at) for image in images]).decode()}
        for number, images in images_of(Path(out), whole, shards)
    ]
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpus = int(settings.device == "cuda")
    most = resources.get("GPU", 0) if gpus else resources.get("CPU", 0) // settings.threads
    done = ray.data.from_items(rows, override_num_blocks=min(len(rows), _MAX_BLOCKS)).map_batches(
        Actor,
        fn_constructor_args=(out, plan, told),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, min(int(most), len(rows)))),
        num_cpus=settings.threads,
        num_gpus=gpus,
    )
    for _ in done.iter_rows():
        pass


def _watch(out: Path, plan: Plan, shards: Sequence[int], tell: Tell, ended: Callable[[], bool]) -> None:
    """Tells of the shards as their files appear, until `ended`, which waits a while."""
    files = {shard.file_of(out, number).name: plan.size_of(number) for number in shards}
    is_over = False
    while not is_over:
        is_over = ended()
        for name in files.keys() & {entry.name for entry in os.scandir(out)}:
            tell(files.pop(name))


def _reason(error: Exception) -> str:
    """The last line of what Ray says, which is that of the actor's traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
