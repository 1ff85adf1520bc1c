"""What answers requests: one bundle, its engine and decoders, and the indexes made with it, which threads read."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, ParamSpec, TypeVar

import anyio.to_thread

from rankone.index import AnyIndex, AnyIndexes, Indexes, IndexProblem, cancellable
from rankone.index.source import is_lance, open_lance, open_postgres
from rankone.model.bundle import Bundle
from rankone.model.engine import Engine, gpu_memory_bytes
from rankone.service.engine_choice import open_engine
from rankone.service.inference.batcher import Batcher
from rankone.service.inference.decode_pool import DecodePool
from rankone.service.inference.decode_worker import DecodeOptions
from rankone.service.inference.engine_thread import EngineThread
from rankone.service.inference.inference import Admission, Inference
from rankone.service.inference.policy import warm_up
from rankone.service.inference.shared import CpuArbiter, Slots
from rankone.service.observe.metrics import Metrics
from rankone.service.settings import Settings

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

LOOKUPS: Final = ThreadPoolExecutor(4, "rankone-lookup")
"""Reads of items by their ids or one after the other: they read as much as they answer."""
SCANS: Final = ThreadPoolExecutor(2, "rankone-scan")
"""Reads of all items, to find those that match a filter: they take seconds, and must not keep lookups waiting."""
_DECODERS_PAUSE_S: Final = 0.25
_END_S: Final = 5.0


@dataclass(frozen=True, eq=False)
class ServedNetwork:
    """What images go through: decoders, and an engine that runs them in batches."""

    settings: Settings
    bundle: Bundle
    engine: Engine
    why: str
    """Why it is this engine, in this precision."""
    pool: DecodePool
    batcher: Batcher
    inference: Inference

    def faults(self, *, needs_all_decoders: bool) -> list[str]:
        """Parts that do not work at the moment, a sentence each; dead processes and threads are being replaced."""
        decodes = self.pool.is_complete if needs_all_decoders else self.pool.is_alive
        faults = [] if decodes else ["a decode worker has died and is being replaced"]
        faults += [] if self.batcher.is_alive else ["the engine's thread has died and is being replaced"]
        if self.batcher.hangs:
            faults.append(f"the engine has been running one batch for {self.batcher.running_s:.0f} s and seems to hang")
        return faults


@dataclass(frozen=True, eq=False)
class Runtime(ServedNetwork):
    """Everything that a route may use. `load` makes it, `close` ends it."""

    indexes: AnyIndexes
    ending: AsyncExitStack

    async def index(self, name: str) -> AnyIndex:
        """The index of that name; see `AnyIndexes.open`. IndexConflict if it was made with another bundle."""
        return await anyio.to_thread.run_sync(self.indexes.open, name, self.bundle.fingerprint)

    async def close(self) -> None:
        """Ends its processes and threads. No request may be in work."""
        await self.ending.aclose()


async def load(bundle: Bundle, settings: Settings, metrics: Metrics, indexes: AnyIndexes) -> Runtime:
    """Starts a bundle's engine, warms it up, and starts the decoders.

    Raises:
        BundleError: the bundle lacks the file that the engine runs.
        EngineError: the engine, the device or the precision is not available.
        DecodersFailed: the decode workers do not start.
        IndexProblem: the index `default` cannot be made.
    """
    ending, dim = AsyncExitStack(), bundle.manifest.dim
    try:
        network = await start_network(bundle, settings, metrics, ending)
        await asyncio.to_thread(indexes.acquire, bundle.fingerprint, dim, thumbnails=settings.thumbnails)
    except BaseException:
        with suppress(TimeoutError):  # an engine that hangs cannot be closed
            async with asyncio.timeout(_END_S):
                await ending.aclose()
        raise
    ending.push_async_callback(asyncio.to_thread, indexes.release, bundle.fingerprint)
    engine, admission = network.engine, network.inference.admission
    metrics.engine.info({"engine": engine.name, "provider": engine.provider, "precision": engine.precision})
    metrics.queue.set_function(lambda: admission.num_images)
    if settings.device == "cuda":
        metrics.watch_gpu_memory(gpu_memory_bytes)
    metrics.index_items.counts = partial(count_items, indexes)
    return Runtime(**vars(network), indexes=indexes, ending=ending)


async def start_network(bundle: Bundle, settings: Settings, metrics: Metrics, ending: AsyncExitStack) -> ServedNetwork:
    """Starts a bundle's engine, warms it up, and starts the decoders. `ending` learns how to end each part as it is made.

    For the errors see `load`.
    """
    spec, policy = bundle.manifest.preprocessing, settings.batch_policy
    shape = (3, spec.size, spec.size)
    thread = EngineThread(metrics.deaths.labels("engine").inc)
    ending.callback(thread.close)
    engine, why = await thread.run(open_engine, bundle, settings)
    ending.push_async_callback(thread.run, engine.close)
    latency = await warm_up(engine, thread, policy, shape)
    slots = Slots(2 * policy.max_batch + settings.workers, shape)
    ending.callback(slots.close)
    arbiter = CpuArbiter(_DECODERS_PAUSE_S if settings.device == "cpu" else 0.0)
    batcher = Batcher(engine, thread, slots, policy, latency, arbiter, metrics)
    ending.push_async_callback(batcher.close)
    options = DecodeOptions(
        spec, settings.limits, settings.decode_memory_bytes, settings.decode_timeout_s, settings.log_format
    )
    on_death = metrics.deaths.labels("decode").inc
    pool = DecodePool(options, slots, settings.workers, arbiter, batcher.put, on_death)
    ending.push_async_callback(pool.close)
    await pool.start()
    inference = Inference(Admission(settings.max_queue, batcher.images_per_s), pool, batcher)
    return ServedNetwork(settings, bundle, engine, why, pool, batcher, inference)


def open_indexes(settings: Settings) -> AnyIndexes:
    """The indexes that the settings name.

    Raises:
        IndexProblem: the folder, the store or the database cannot be used; the message says why.
    """
    if settings.index == "local":
        return Indexes(settings.data, settings.threads, settings.device)
    if is_lance(settings.index):
        return open_lance(settings.index)
    return open_postgres(settings.index, settings.max_request_timeout_s)


def count_items(indexes: AnyIndexes) -> dict[str, int]:
    """The number of items of each index; none if the database cannot be reached, as the other metrics are wanted then too."""
    try:
        return indexes.counts()
    except IndexProblem:
        return {}


async def in_thread(
    pool: ThreadPoolExecutor, read: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
) -> Result:
    """What `read` returns. If the request is cancelled, the read is interrupted; if it has not begun, it never does."""
    is_cancelled = threading.Event()

    def run() -> Result:
        with cancellable(is_cancelled.is_set):
            return read(*arguments, **options)

    work = pool.submit(run)
    future = asyncio.wrap_future(work)
    try:
        await asyncio.wait([future])
    except asyncio.CancelledError:
        is_cancelled.set()
        if not work.cancel():  # it has a thread: the request ends after the thread, or threads would pile up
            await asyncio.wait([future])
            future.exception()
        raise
    return future.result()
