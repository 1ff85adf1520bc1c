"""What answers requests: one bundle, its engine and decoders, and the indexes made with it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from model.bundle import Bundle
from service.batching.admission import Admission
from service.batching.batcher import Batcher
from service.batching.lane import Lane
from service.batching.warm import warm_up
from service.decoding.pool import DecodePool
from service.decoding.process import DecodeLimits
from service.decoding.slots import Slots
from service.engine import Engine, load_engine
from service.index import Indexes, IndexView
from service.inference import Inference
from service.metrics import Metrics
from service.settings import Settings


@dataclass(frozen=True, eq=False)
class Runtime:
    """Everything a route may use. Made whole by `load`, ended by `close`."""

    settings: Settings
    bundle: Bundle
    engine: Engine
    lane: Lane
    slots: Slots
    pool: DecodePool
    batcher: Batcher
    inference: Inference
    indexes: IndexView

    def faults(self) -> list[str]:
        """What of it does not work at the moment; all of it is being replaced."""
        faults = [] if self.pool.is_alive else ["a decode worker has died and is being replaced"]
        faults += [] if self.batcher.is_alive else ["the engine's thread has died and is being replaced"]
        if self.batcher.running_s > self.settings.max_request_timeout_s:
            faults.append(f"the engine has been at one batch for {self.batcher.running_s:.0f} s")
        return faults

    async def close(self) -> None:
        """Ends its processes and threads; no request may be in work."""
        await self.batcher.close()
        await self.pool.close()
        self.slots.close()
        await self.lane(self.engine.close)
        self.lane.close()


async def load(bundle: Bundle, settings: Settings, metrics: Metrics, indexes: Indexes) -> Runtime:
    """Starts the engine of a bundle and runs it at every size it will see, and starts its decoders.

    Raises:
        BundleError: the bundle lacks the file that the engine runs.
        EngineError: the engine or the device cannot be had.
        DecodersFailed: the decode workers do not start.
    """
    lane = Lane("engine")
    try:
        engine = await lane(load_engine, bundle, settings.engine, settings.device, settings.threads)
        return await assemble(bundle, engine, lane, settings, metrics, indexes)
    except BaseException:
        lane.close()
        raise


async def assemble(
    bundle: Bundle, engine: Engine, lane: Lane, settings: Settings, metrics: Metrics, indexes: Indexes
) -> Runtime:
    """The runtime around an engine that was made in `lane`.

    Raises:
        EngineError: what the engine raises.
        DecodersFailed: the decode workers do not start.
    """
    spec, sizes = bundle.manifest.preprocessing, settings.sizes
    latency = await warm_up(engine, lane, sizes, (3, spec.size, spec.size))
    slots = Slots(2 * sizes.max_batch + settings.workers, (3, spec.size, spec.size))
    batcher = Batcher(engine, lane, slots, sizes, settings.batch_window_ms / 1e3, latency, metrics)
    limits = DecodeLimits(settings.limits, settings.decode_memory_bytes, settings.decode_timeout_s)
    pool = DecodePool(spec, slots, limits, settings.workers, batcher.put)
    await pool.start()
    admission = Admission(settings.max_queue, batcher.images_per_s)
    metrics.watch_queue(lambda: admission.num_images)
    metrics.describe_engine(engine.name, engine.provider, engine.precision)
    view = indexes.serving(bundle.fingerprint, bundle.manifest.dim)
    for name in view.names():
        metrics.watch_index(name, partial(view.count, name))
    return Runtime(settings, bundle, engine, lane, slots, pool, batcher, Inference(admission, pool, batcher), view)
