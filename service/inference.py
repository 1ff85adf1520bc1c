"""The way of an image through the service: bytes -> decoder -> engine -> outputs."""

from __future__ import annotations

import time
from collections.abc import Sequence

import anyio
import anyio.to_thread
import numpy as np

from service.decoding import Decoder
from service.engine import Engine, EngineError, Outputs
from service.engine.base import Images
from service.metrics import Metrics


class Inference:
    """Runs requests through decoder and engine; the engine is used by one request at a time, in a thread of its own."""

    def __init__(self, decoder: Decoder, engine: Engine, max_batch: int, metrics: Metrics) -> None:
        self._decoder, self._engine, self._max_batch, self._metrics = decoder, engine, max_batch, metrics
        self._turn = anyio.CapacityLimiter(1)

    async def __call__(self, images: Sequence[bytes]) -> Outputs:
        """The outputs for the encoded images of one request, in its order.

        Raises:
            InputsRejected: images that cannot be used.
            EngineError: an answer that holds NaN or infinity.
        """
        pixels = await self._decoder.decode(images)
        parts = [
            await anyio.to_thread.run_sync(self._run, pixels[start : start + self._max_batch], limiter=self._turn)
            for start in range(0, len(pixels), self._max_batch)
        ]
        logits = [part.logits for part in parts if part.logits is not None]
        return Outputs(np.concatenate([part.embedding for part in parts]), np.concatenate(logits) if logits else None)

    def _run(self, images: Images) -> Outputs:
        started = time.perf_counter()
        outputs = self._engine.run(images)
        self._metrics.engine_seconds.observe(time.perf_counter() - started)
        self._metrics.images.inc(len(images))
        for array in (outputs.embedding, outputs.logits):
            if array is not None and not np.isfinite(array).all():
                raise EngineError("the network answered with NaN or infinity")
        return outputs
