"""Batches: when the engine is free, the images that wait go to it together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from rankone.model.engine import Engine, EngineError, EngineOutOfMemory, Outputs
from rankone.model.engine.base import Images
from rankone.model.engine.check import finite_rows
from rankone.service.errors import DeadlinePassed
from rankone.service.inference.engine_thread import EngineThread
from rankone.service.inference.job import FairQueue, Job, Task
from rankone.service.inference.policy import BatchPolicy, LatencyModel
from rankone.service.inference.shared import CpuArbiter, Slots
from rankone.service.observe.metrics import Metrics

logger = logging.getLogger("rankone")

PATIENCE: Final = 0.2
"""How long a batch waits for images that are being decoded on the engine's CPU, as a part of the time that it would take."""
_HANGS_AFTER_BATCHES: Final = 20
"""A batch that takes so many times the slowest one of the warm-up hangs…"""
_HANGS_AFTER_S: Final = 10.0
"""…though not before so many seconds: the machine may have been busy with something else."""
_PAUSE_S: Final = 0.1
"""After an internal error, so that a repeating one does not flood the log."""


class Batcher:
    """Takes decoded images, runs them in batches, one batch at a time, and answers their jobs.

    The engine runs in `thread`, `latency` learns from every batch, and `arbiter` is told when one runs.
    """

    def __init__(
        self,
        engine: Engine,
        thread: EngineThread,
        slots: Slots,
        policy: BatchPolicy,
        latency: LatencyModel,
        arbiter: CpuArbiter,
        metrics: Metrics,
    ) -> None:
        self._engine, self._thread, self._slots = engine, thread, slots
        self._policy, self._latency, self._arbiter, self._metrics = policy, latency, arbiter, metrics
        self._queue = FairQueue()
        self._running_since: float | None = None
        self._loop = asyncio.create_task(self._run_batches())

    @property
    def is_alive(self) -> bool:
        """The engine's thread and the loop that feeds it run."""
        return self._thread.is_alive and not self._loop.done()

    @property
    def hangs(self) -> bool:
        """The engine has been running its present batch for far longer than any should take."""
        return self.running_s > max(_HANGS_AFTER_S, _HANGS_AFTER_BATCHES * self._latency.slowest_s)

    @property
    def running_s(self) -> float:
        """How long the engine has been running its present batch; 0 while it is free."""
        return 0.0 if self._running_since is None else time.perf_counter() - self._running_since

    def put(self, task: Task) -> None:
        """Queues a decoded image, whose slot the batcher now owns."""
        self._queue.put_nowait(task)

    def discard(self, job: Job) -> None:
        """Forgets the waiting images of a job."""
        self._release(self._queue.discard(job))

    def images_per_s(self) -> float:
        """Images that the engine can run in a second, in full batches."""
        size = self._policy.max_batch
        return size / max(self._latency.predict(size), 1e-6)

    async def close(self) -> None:
        """Stops; waiting images are not run."""
        self._loop.cancel()
        await asyncio.gather(self._loop, return_exceptions=True)

    async def _run_batches(self) -> None:
        while True:
            tasks = await self._collect()
            try:
                if wanted := self._wanted(tasks):
                    await self._run(wanted)
            except Exception as error:
                self._metrics.deaths.labels("batch").inc()
                logger.error("internal error in the batcher; continuing", exc_info=error)
                await asyncio.sleep(_PAUSE_S)
            finally:
                self._release(tasks)

    async def _collect(self) -> list[Task]:
        """Waits for an image; takes it with the others that wait, are being decoded, or come within the window."""
        tasks = [await self._queue.get()]
        await asyncio.sleep(0)  # lets the decoders begin that waited for the last batch to end
        window_s, arbiter = self._policy.window_s, self._arbiter
        left_s = tasks[0].decoded_at + window_s - time.perf_counter()
        if arbiter.is_decoding:
            left_s = max(left_s, PATIENCE * self._latency.predict(1 + self._queue.qsize()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left_s):
                while len(tasks) < self._policy.max_batch and (
                    window_s or arbiter.is_decoding or not self._queue.empty()
                ):
                    tasks.append(await self._queue.get())
        return tasks

    def _wanted(self, tasks: Sequence[Task]) -> list[Task]:
        """The images to run. Jobs that would be answered too late fail, if others can be answered sooner without them."""
        wanted = [task for task in tasks if task.job.wants_engine]
        ends_at = time.perf_counter() + self._latency.predict(self._policy.padded(len(wanted)))
        late = [task for task in wanted if task.job.deadline < ends_at]
        if len(late) < len(wanted) or not self._queue.empty():
            for task in late:
                task.job.fail(DeadlinePassed("the engine cannot answer before this request's deadline"))
        return [task for task in wanted if task.job.wants_engine]

    async def _run(self, tasks: Sequence[Task]) -> None:
        started_at = self._running_since = time.perf_counter()
        try:
            with self._arbiter.running():
                outputs = await self._outputs(tasks)
            is_finite = finite_rows(outputs)
            ended_at = time.perf_counter()
            self._metrics.observe_batch(len(tasks), ended_at - started_at)
            for row, task in enumerate(tasks):
                if is_finite[row]:
                    task.job.answer(task, outputs.at(slice(row, row + 1)), started_at, ended_at)
                else:
                    task.job.fail(EngineError("the network answered this image with NaN or infinity"))
        except Exception as error:
            logger.error("a batch of %d images failed", len(tasks), exc_info=error)
            told = error if isinstance(error, EngineError) else EngineError("the engine failed on this batch of images")
            for task in tasks:
                task.job.fail(told)
        finally:
            self._running_since = None

    async def _outputs(self, tasks: Sequence[Task]) -> Outputs:
        """Runs a batch. One that is too large for the engine's memory is run as two halves."""
        images = [self._pixels(task) for task in tasks]
        images += images[:1] * (self._policy.padded(len(images)) - len(images))
        wants_features = any(task.job.wants_features for task in tasks)
        run = partial(self._engine.run, features=True) if wants_features else self._engine.run
        started_at = time.perf_counter()
        try:
            outputs = await self._thread.run(run, images)
        except EngineOutOfMemory:
            if len(images) == 1:
                raise
            logger.warning("out of memory with %d images; trying again with half of them at a time", len(images))
        else:
            self._latency.observe(len(images), time.perf_counter() - started_at)
            return outputs
        middle = len(images) // 2
        halves = [await self._thread.run(run, half) for half in (images[:middle], images[middle:])]
        return Outputs.joined(halves)

    def _pixels(self, task: Task) -> Images:
        assert task.slot is not None
        return self._slots[task.slot]

    def _release(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            assert task.slot is not None
            self._slots.put_nowait(task.slot)
            task.slot = None
