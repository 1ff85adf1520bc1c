"""Batches: when the engine is free, the images that wait go to it together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from rankone.model.engine import Engine, EngineError, EngineOutOfMemory, Outputs
from rankone.model.engine.base import Images
from rankone.model.engine.check import finite_rows
from rankone.service.inference.engine_thread import EngineThread
from rankone.service.inference.job import DeadlinePassed, Job, Task
from rankone.service.inference.policy import BatchPolicy, LatencyModel
from rankone.service.inference.queue import FairQueue
from rankone.service.inference.slots import Slots
from rankone.service.metrics import Metrics

logger = logging.getLogger("rankone")

_PAUSE_S: Final = 0.1
"""After a fault of ours, so that a fault that repeats does not fill the log."""


@dataclass
class _Batch:
    tasks: list[Task]
    pixels: Images


class Batcher:
    """Puts decoded images together and runs them. Its state changes on the event loop only.

    Two loops: one copies the next batch out of its slots while the other runs the batch before. So a batch is put together
    when the engine is free, or ahead of time when a full batch waits.

    Args:
        engine: run in `thread`, one batch at a time.
        thread: the engine's.
        slots: where the pixels are.
        policy: the size of batches, and how long they wait.
        latency: of the engine; learns from every batch.
        metrics: counts batches and times the engine.
    """

    def __init__(
        self,
        engine: Engine,
        thread: EngineThread,
        slots: Slots,
        policy: BatchPolicy,
        latency: LatencyModel,
        metrics: Metrics,
    ) -> None:
        self._engine, self._thread, self._slots = engine, thread, slots
        self._policy, self._latency, self._metrics = policy, latency, metrics
        self._queue, self._changed = FairQueue(), asyncio.Event()
        self._oldest_at = 0.0
        """When the queue last became non-empty."""
        self._next: asyncio.Queue[_Batch] = asyncio.Queue(maxsize=1)
        self._running_since: float | None = None
        self._loops = [asyncio.create_task(self._repeat(step)) for step in (self._form_batch, self._run_batch)]

    @property
    def is_alive(self) -> bool:
        """The engine's thread and both loops run."""
        return self._thread.is_alive and not any(loop.done() for loop in self._loops)

    @property
    def running_s(self) -> float:
        """How long the engine has been running its present batch; 0 while it is free."""
        return 0.0 if self._running_since is None else time.perf_counter() - self._running_since

    def put(self, task: Task) -> None:
        """Queues a decoded image, whose slot the batcher now owns."""
        if self._queue.empty():
            self._oldest_at = time.perf_counter()
        self._queue.put_nowait(task)
        self._changed.set()

    def discard(self, job: Job) -> None:
        """Forgets the waiting images of a job."""
        self._release(self._queue.discard(job))
        self._changed.set()

    def images_per_s(self) -> float:
        """Images that the engine can run in a second, in full batches."""
        size = self._policy.max_batch
        return size / max(self._latency.predict(size), 1e-6)

    async def close(self) -> None:
        """Stops; waiting images are not run."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)

    async def _repeat(self, step: Callable[[], Awaitable[None]]) -> None:
        """Repeats a step for ever, also after a fault of ours: otherwise no request would be answered any more."""
        while True:
            try:
                await step()
            except Exception as error:
                self._metrics.count_death("batch")
                logger.error("the batcher failed, and continues", exc_info=error)
                await asyncio.sleep(_PAUSE_S)

    async def _form_batch(self) -> None:
        while (wait_s := self._wait_s()) is None or wait_s > 0:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
        if not (tasks := self._take()):
            return
        try:
            pixels = await asyncio.to_thread(self._stacked, tasks)
        except Exception as error:
            self._fail(tasks, error)
        else:
            await self._next.put(_Batch(tasks, pixels))
        finally:
            self._release(tasks)

    def _wait_s(self) -> float | None:
        """Seconds until the next batch is due; None if something must change before."""
        num_waiting = self._queue.qsize()
        if not num_waiting or self._next.full():
            return None
        if num_waiting >= self._policy.max_batch:
            return 0.0
        if self._running_since is not None:
            return None
        return self._oldest_at + self._policy.window_s - time.perf_counter()

    def _take(self) -> list[Task]:
        """The images of the next batch. Jobs that it would answer too late fail, where others can have their places."""
        max_batch = self._policy.max_batch
        ends_at = time.perf_counter() + self._latency.predict(min(self._queue.qsize(), max_batch))
        tasks: list[Task] = []
        while not self._queue.empty() and len(tasks) < max_batch:
            task = self._queue.get_nowait()
            if task.job.deadline < ends_at and (tasks or not self._queue.empty()):
                task.job.fail(DeadlinePassed("the engine cannot answer before this request's deadline"))
            if task.job.wants_engine:
                tasks.append(task)
            else:
                self._release([task])
        return tasks

    def _stacked(self, tasks: Sequence[Task]) -> Images:
        """The pixels of these images, (n, 3, size, size), padded with zeros. Runs in a thread."""
        pixels = np.zeros((self._policy.padded(len(tasks)), *self._slots.shape), np.float32)
        for row, task in enumerate(tasks):
            assert task.slot is not None
            pixels[row] = self._slots[task.slot]
        return pixels

    def _release(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            assert task.slot is not None
            self._slots.release(task.slot)
            task.slot = None

    async def _run_batch(self) -> None:
        batch = await self._next.get()
        self._running_since = time.perf_counter()
        self._changed.set()
        try:
            if any(task.job.wants_engine for task in batch.tasks):  # their requests may have been cancelled meanwhile
                await self._answer(batch)
        except Exception as error:
            self._fail(batch.tasks, error)
        finally:
            self._running_since = None
            self._changed.set()

    async def _answer(self, batch: _Batch) -> None:
        started_at = time.perf_counter()
        outputs = await self._outputs(batch.pixels)
        ended_at = time.perf_counter()
        self._metrics.observe_batch(len(batch.tasks), ended_at - started_at)
        is_finite = finite_rows(outputs)
        for row, task in enumerate(batch.tasks):
            logits = None if outputs.logits is None else outputs.logits[row]
            if is_finite[row]:
                task.job.answer(task, outputs.embedding[row], logits, started_at, ended_at)
            else:
                task.job.fail(EngineError("the network answered this image with NaN or infinity"))

    async def _outputs(self, pixels: Images) -> Outputs:
        """Runs a batch. One that is too large for the engine's memory is run as two halves."""
        started_at = time.perf_counter()
        try:
            outputs = await self._thread.run(self._engine.run, pixels)
        except EngineOutOfMemory:
            if len(pixels) == 1:
                raise
            logger.warning("out of memory with %d images; trying again with half of them at a time", len(pixels))
        else:
            self._latency.observe(len(pixels), time.perf_counter() - started_at)
            return outputs
        halves = [await self._thread.run(self._engine.run, half) for half in np.array_split(pixels, 2)]
        logits = [half.logits for half in halves if half.logits is not None]
        return Outputs(np.concatenate([half.embedding for half in halves]), np.concatenate(logits) if logits else None)

    def _fail(self, tasks: Sequence[Task], error: Exception) -> None:
        logger.error("a batch of %d images failed", len(tasks), exc_info=error)
        told = error if isinstance(error, EngineError) else EngineError("the engine failed on this batch of images")
        for task in tasks:
            task.job.fail(told)
