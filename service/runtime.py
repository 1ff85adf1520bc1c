"""What answers requests: one bundle, its engine and decoders, and the indexes made with it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final

from rankone.index import Index, Indexes
from rankone.model.bundle import Bundle
from rankone.model.engine import Engine, load_engine
from rankone.model.engine.memory import gpu_memory_bytes
from rankone.service.batching.admission import Admission
from rankone.service.batching.batcher import Batcher
from rankone.service.batching.lane import Lane
from rankone.service.batching.turns import Turns
from rankone.service.batching.warm import warm_up
from rankone.service.batching.worth import Worth
from rankone.service.decoding.pool import DecodePool
from rankone.service.decoding.process import DecodeLimits
from rankone.service.decoding.slots import Slots
from rankone.service.inference import Inference
from rankone.service.observe.metrics import Metrics
from rankone.service.settings import Settings

_DECODERS_PAUSE_S: Final = 0.25
"""At most, while an engine on the same processor runs a batch: a refusal is promised within a second."""


@dataclass(frozen=True, eq=False)
class Runtime:
    """Everything a route may use. Made whole by `load`, ended by `close`."""

    settings: Settings
    bundle: Bundle
    engine: Engine
    pool: DecodePool
    batcher: Batcher
    inference: Inference
    indexes: Indexes
    ending: AsyncExitStack

    def index(self, name: str) -> Index:
        """The index of that name; see `Indexes.open`. IndexConflict if it was made with another bundle."""
        return self.indexes.open(name, self.bundle.fingerprint)

    def faults(self) -> list[str]:
        """What of it does not work at the moment; what has died is being replaced."""
        faults = [] if self.pool.is_alive else ["a decode worker has died and is being replaced"]
        faults += [] if self.batcher.is_alive else ["the engine's thread has died and is being replaced"]
        if self.batcher.running_s > self.settings.max_request_timeout_s:
            faults.append(f"the engine has been at one batch for {self.batcher.running_s:.0f} s")
        return faults

    async def close(self) -> None:
        """Ends its processes and threads; no request may be in work."""
        await self.ending.aclose()


async def load(bundle: Bundle, settings: Settings, metrics: Metrics, indexes: Indexes) -> Runtime:
    """Starts the engine of a bundle and runs it at every size it will see, and starts its decoders.

    Raises:
        BundleError: the bundle lacks the file that the engine runs.
        EngineError: the engine, the device or the precision cannot be had.
        DecodersFailed: the decode workers do not start.
        IndexProblem: the index `default` cannot be made.
    """
    ending = AsyncExitStack()
    try:
        return await _assemble(bundle, settings, metrics, indexes, ending)
    except BaseException:
        await ending.aclose()
        raise


async def _assemble(
    bundle: Bundle, settings: Settings, metrics: Metrics, indexes: Indexes, ending: AsyncExitStack
) -> Runtime:
    """The runtime; how each of its parts ends is left with `ending` as soon as it has begun."""
    spec, sizes = bundle.manifest.preprocessing, settings.sizes
    shape = (3, spec.size, spec.size)
    lane = Lane("engine", partial(metrics.count_death, "engine"))
    ending.callback(lane.close)
    engine = await lane(_load_engine, bundle, settings)
    ending.push_async_callback(lane, engine.close)
    latency = await warm_up(engine, lane, sizes, shape)
    slots = Slots(2 * sizes.max_batch + settings.workers, shape)
    ending.callback(slots.close)
    turns = Turns(_DECODERS_PAUSE_S if settings.device == "cpu" else 0.0, sizes.max_batch)
    worth = Worth(sizes.max_batch, latency, always=settings.always_batches)
    batcher = Batcher(engine, lane, slots, sizes, worth, settings.batch_window_ms / 1e3, latency, turns, metrics)
    ending.push_async_callback(batcher.close)
    limits = DecodeLimits(settings.limits, settings.decode_memory_bytes, settings.decode_timeout_s)
    pool = DecodePool(spec, slots, limits, settings.workers, turns, batcher.put, partial(metrics.count_death, "decode"))
    ending.push_async_callback(pool.close)
    await pool.start()
    admission = Admission(settings.max_queue, batcher.images_per_s)
    await asyncio.to_thread(indexes.acquire, bundle.fingerprint, bundle.manifest.dim)
    ending.push_async_callback(asyncio.to_thread, indexes.release, bundle.fingerprint)
    _watch(settings, metrics, engine, admission, indexes)
    return Runtime(settings, bundle, engine, pool, batcher, Inference(admission, pool, batcher), indexes, ending)


def _load_engine(bundle: Bundle, settings: Settings) -> Engine:
    return load_engine(
        bundle,
        settings.engine,
        settings.device,
        settings.threads,
        settings.precision,
        cuda_graphs=settings.cuda_graphs,
        tensorrt_cache=settings.tensorrt_cache,
        max_batch=settings.sizes.max_batch,
    )


def _watch(settings: Settings, metrics: Metrics, engine: Engine, admission: Admission, indexes: Indexes) -> None:
    metrics.describe_engine(engine.name, engine.provider, engine.precision)
    metrics.watch_queue(lambda: admission.num_images)
    if settings.device == "cuda":
        metrics.watch_gpu_memory(gpu_memory_bytes)
    metrics.watch_indexes(lambda: {name: indexes.count(name) for name in indexes.names()})
