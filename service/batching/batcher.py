"""Batches: as soon as the engine is free it gets what waits and is worth a batch, and one is prepared ahead while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from rankone.model.engine import Engine, EngineError, EngineOutOfMemory, Outputs
from rankone.model.engine.answer import finite_rows
from rankone.model.engine.base import Images
from rankone.service.batching.fair import FairQueue
from rankone.service.batching.job import Job, Task
from rankone.service.batching.lane import Lane
from rankone.service.batching.latency import LatencyModel
from rankone.service.batching.sizes import Sizes
from rankone.service.batching.turns import Turns
from rankone.service.batching.worth import Worth
from rankone.service.decoding.slots import Slots
from rankone.service.errors import DeadlinePassed
from rankone.service.observe.metrics import Metrics

logger = logging.getLogger("rankone")

_PATIENCE: Final = 0.1
"""How long a free engine waits for images that are being decoded, as a part of what it would take for those that are there."""
_PAUSE_S: Final = 0.1
"""Before a loop that failed begins again, lest it fill the log."""


@dataclass
class _Batch:
    tasks: list[Task]
    pixels: Images


class Batcher:
    """Between decoded images and the engine. Everything but copying pixels and the engine happens on the event loop.

    Args:
        engine: run in `lane`, one batch at a time.
        lane: the engine's thread.
        slots: where the decoded pixels are.
        sizes: of the batches as the engine sees them.
        worth: how many images a batch is to have.
        window_s: how long a batch that is not full waits for more, from its first image on.
        latency: the engine's, as the warm-up found it.
        turns: with the decoders.
        metrics: counts batches and times the engine.
    """

    def __init__(
        self,
        engine: Engine,
        lane: Lane,
        slots: Slots,
        sizes: Sizes,
        worth: Worth,
        window_s: float,
        latency: LatencyModel,
        turns: Turns,
        metrics: Metrics,
    ) -> None:
        self._engine, self._lane, self._slots, self._metrics = engine, lane, slots, metrics
        self._sizes, self._worth, self._window_s, self._latency = sizes, worth, window_s, latency
        self._copier = Lane("batch", partial(metrics.count_death, "batch"))
        self._queue = FairQueue()
        self._turns, self._changed = turns, asyncio.Event()
        turns.num_waiting = lambda: len(self._queue)
        self._prepared: asyncio.Queue[_Batch] = asyncio.Queue(maxsize=1)
        self._running_since: float | None = None
        self._running_size = 0
        self._opened_at = 0.0
        self._loops = [asyncio.create_task(self._kept(loop)) for loop in (self._prepare, self._run)]

    @property
    def is_alive(self) -> bool:
        """Its threads and loops run."""
        return self._lane.is_alive and self._copier.is_alive and not any(loop.done() for loop in self._loops)

    @property
    def running_s(self) -> float:
        """How long the engine has been at the batch it is running."""
        return 0.0 if self._running_since is None else time.perf_counter() - self._running_since

    @property
    def takes_all(self) -> bool:
        """A batch has all that wait, as far as they go into one, and not half of them."""
        return self._worth.takes_all

    def put(self, task: Task) -> None:
        """Queues an image that has been decoded."""
        if not self._queue:
            self._opened_at = time.perf_counter()
        self._queue.push(task)
        self._changed.set()

    def discard(self, job: Job) -> None:
        """Takes out what waits of a job."""
        self._release(self._queue.discard(job))
        self._changed.set()

    def images_per_s(self) -> float:
        """What full batches come to, each of them waited for."""
        waited = 1 + _PATIENCE if self._turns.is_shared else 1
        return self._sizes.max_batch / max(waited * self._latency.predict(self._sizes.max_batch), 1e-6)

    async def close(self) -> None:
        """Ends it; what waits is not answered."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._copier.close()

    async def _kept(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Begins again after a fault of ours: without one of the loops nobody would ever be answered."""
        while True:
            try:
                await loop()
            except Exception as error:
                self._metrics.count_death("batch")
                logger.error("the batcher failed, and goes on", exc_info=error)
                await asyncio.sleep(_PAUSE_S)

    async def _prepare(self) -> None:
        while True:
            await self._until_worthwhile()
            if not (tasks := self._take()):
                continue
            self._turns.take()
            try:
                pixels = await self._copier(self._copied, tasks)
            except Exception as error:
                self._fail(tasks, error)
                self._turns.give_back()
            else:
                await self._prepared.put(_Batch(tasks, pixels))
            finally:
                self._release(tasks)

    async def _until_worthwhile(self) -> None:
        """Returns when the engine is free and something waits, or when a whole batch does and none is prepared."""
        while not self._is_worthwhile():
            self._changed.clear()
            await self._changed.wait()
        free_at = time.perf_counter()
        while (left_s := self._closes_at(free_at) - time.perf_counter()) > 0:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left_s)

    def _closes_at(self, free_at: float) -> float:
        """Until when what could run since `free_at` waits to be more: for its window, and for what is being decoded."""
        if not 0 < len(self._queue) < self._next_size():
            return 0.0
        closes_at = self._opened_at + self._window_s
        expected_s = self._latency.predict(len(self._queue))
        if self._turns.is_shared and self._turns.num_decoding():
            closes_at = max(closes_at, free_at + _PATIENCE * expected_s)
        return min(closes_at, self._queue.deadline - expected_s)

    def _is_worthwhile(self) -> bool:
        is_free = self._running_since is None
        if self._prepared.full() or (self._turns.is_overdue and not is_free):
            return False
        return len(self._queue) >= self._next_size() or (is_free and len(self._queue) > 0)

    def _next_size(self) -> int:
        return self._worth.size(self._turns.num_unrun)

    def _take(self) -> list[Task]:
        """What the next batch is to have, in turns between the jobs, without those that cannot be in time."""
        tasks: list[Task] = []
        most = self._next_size()
        size = min(len(self._queue), most)
        ready_at = time.perf_counter() + self._left_s() + self._latency.predict(size)
        while self._queue and len(tasks) < most:
            task = self._queue.pop()
            if task.job.wants_engine and task.job.deadline < ready_at:
                self._latency.doubt()
                task.job.fail(DeadlinePassed("the engine cannot answer in the time that this request allows"))
            if task.job.wants_engine:
                tasks.append(task)
            else:
                self._release([task])
        return tasks

    def _left_s(self) -> float:
        """How long the batch that is running will still take."""
        return max(0.0, self._latency.predict(self._running_size) - self.running_s) if self._running_size else 0.0

    def _copied(self, tasks: Sequence[Task]) -> Images:
        pixels = np.zeros((self._sizes.padded(len(tasks)), *self._slots.shape), np.float32)
        for row, task in enumerate(tasks):
            pixels[row] = self._slots[task.slot]
        return pixels

    def _release(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            self._slots.release(task.slot)
            task.slot = None

    async def _run(self) -> None:
        while True:
            batch = await self._prepared.get()
            self._running_since, self._running_size = time.perf_counter(), len(batch.pixels)
            self._changed.set()
            try:
                if any(task.job.wants_engine for task in batch.tasks):  # or all of them have left meanwhile
                    await self._answer(batch)
            except Exception as error:
                self._fail(batch.tasks, error)
            finally:
                self._running_since, self._running_size = None, 0
                self._turns.give_back()
                self._changed.set()

    async def _answer(self, batch: _Batch) -> None:
        started_at = time.perf_counter()
        outputs, is_finite = await self._outputs(batch.pixels)
        ended_at = time.perf_counter()
        self._metrics.observe_batch(len(batch.tasks), ended_at - started_at)
        for row, task in enumerate(batch.tasks):
            logits = None if outputs.logits is None else outputs.logits[row]
            if is_finite[row]:
                task.job.answer(task, outputs.embedding[row], logits, started_at, ended_at)
            else:
                task.job.fail(EngineError("the network answered this image with NaN or infinity"))

    async def _outputs(self, pixels: Images) -> tuple[Outputs, npt.NDArray[np.bool_]]:
        """The engine's answers, and which are finite; a batch that is too large for its memory is run as two halves."""
        started_at = time.perf_counter()
        try:
            answer = await self._lane(_run, self._engine, pixels)
        except EngineOutOfMemory:
            if len(pixels) == 1:
                raise
            logger.warning("out of memory with %d images; trying again with half of them at a time", len(pixels))
        else:
            self._latency.observe(len(pixels), time.perf_counter() - started_at)
            return answer
        halves = [await self._lane(_run, self._engine, half) for half in np.array_split(pixels, 2)]
        logits = [half.logits for half, _ in halves if half.logits is not None]
        embedding = np.concatenate([half.embedding for half, _ in halves])
        outputs = Outputs(embedding, np.concatenate(logits) if logits else None)
        return outputs, np.concatenate([is_finite for _, is_finite in halves])

    def _fail(self, tasks: Sequence[Task], error: Exception) -> None:
        logger.error("a batch of %d images failed", len(tasks), exc_info=error)
        told = error if isinstance(error, EngineError) else EngineError("the engine failed on this batch of images")
        for task in tasks:
            task.job.fail(told)


def _run(engine: Engine, pixels: Images) -> tuple[Outputs, npt.NDArray[np.bool_]]:
    outputs = engine.run(pixels)
    return outputs, finite_rows(outputs)
