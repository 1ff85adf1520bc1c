"""The decode workers: images in turns between requests, each to a free worker as soon as a slot for its pixels is free."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from rankone.model.errors import RankoneError
from rankone.model.preprocessing import ImageRejected, Preprocessing
from rankone.service.batching.fair import FairQueue
from rankone.service.batching.job import Job, Task
from rankone.service.batching.turns import Turns
from rankone.service.decoding.process import DecodeLimits, WorkerProcess
from rankone.service.decoding.slots import Slots
from rankone.service.errors import DeadlinePassed

logger = logging.getLogger("rankone")

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 5.0
_START_S: Final = 60.0


class DecodersFailed(RankoneError, RuntimeError):
    """The decode workers do not start."""


class DecodePool:
    """`num_workers` processes, each replaced when it dies.

    Args:
        spec: what the pixels are to be.
        slots: where they go.
        limits: of one image.
        num_workers: images decoded at once.
        turns: with the engine.
        on_decoded: takes each image that is in its slot and still wanted.
        on_death: told of each worker that ended before its time.
    """

    def __init__(
        self,
        spec: Preprocessing,
        slots: Slots,
        limits: DecodeLimits,
        num_workers: int,
        turns: Turns,
        on_decoded: Callable[[Task], None],
        on_death: Callable[[], None],
    ) -> None:
        self._spec, self._slots, self._limits, self._num_workers = spec, slots, limits, num_workers
        self._turns, self._on_decoded, self._on_death = turns, on_decoded, on_death
        self._queue = FairQueue()
        self._workers: set[WorkerProcess] = set()
        self._ready: set[WorkerProcess] = set()
        self._free: list[WorkerProcess] = []
        self._upkeep: set[asyncio.Task[None]] = set()
        self._pause_s = _FIRST_PAUSE_S
        self._is_closed = False
        self._all_ready = asyncio.Event()
        slots.on_release = turns.on_decoders = self._dispatch
        turns.num_decoding = lambda: len(self._ready) - len(self._free)
        turns.num_queued = lambda: len(self._queue)

    async def start(self) -> None:
        """Returns when all workers are ready; whether they are or not, `close` ends those that there are.

        Raises:
            DecodersFailed: they are not, within a minute.
        """
        try:
            for _ in range(self._num_workers):
                await self._start_one()
            await asyncio.wait_for(self._all_ready.wait(), _START_S)
        except OSError as error:
            reason = "the log says what they printed" if isinstance(error, TimeoutError) else error
            raise DecodersFailed(f"the decode workers did not start: {reason}") from None

    @property
    def is_alive(self) -> bool:
        """All workers are there."""
        return len(self._ready) == self._num_workers

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers."""
        return [worker.process.pid for worker in self._workers]

    def submit(self, job: Job) -> None:
        """Queues the images of a request."""
        for task in job.tasks:
            self._queue.push(task)
        self._dispatch()

    def discard(self, job: Job) -> None:
        """Takes out what waits of a job; what is being decoded is dropped when it is done."""
        self._queue.discard(job)

    async def close(self) -> None:
        """Ends the workers; what waits is not decoded."""
        self._is_closed = True
        self._slots.on_release = self._turns.on_decoders = lambda: None
        for task in self._upkeep:
            task.cancel()
        await asyncio.gather(*self._upkeep, return_exceptions=True)
        for worker in self._workers:
            worker.stop()
        await asyncio.to_thread(_wait_for, list(self._workers))

    def _dispatch(self) -> None:
        while self._queue and self._free and self._slots.num_free and self._turns.may_begin():
            task = self._queue.pop()
            if task.job.deadline < time.perf_counter():
                task.job.fail(DeadlinePassed("the deadline passed before the image was decoded"))
            if task.job.is_over:
                continue
            task.slot = self._slots.acquire()
            self._free.pop().decode(task)

    def _decoded(self, task: Task, error: ImageRejected | None) -> None:
        if error is None:
            task.job.decoded(task)
            if task.job.wants_engine:
                self._on_decoded(task)
                return
        else:
            task.job.reject(task, error)
        slot, task.slot = task.slot, None
        self._slots.release(slot)

    def _freed(self, worker: WorkerProcess) -> None:
        if worker not in self._ready:
            self._ready.add(worker)
            self._pause_s = _FIRST_PAUSE_S
            if self.is_alive:
                self._all_ready.set()
        self._free.append(worker)
        self._dispatch()

    def _ended(self, worker: WorkerProcess) -> None:
        self._ready.discard(worker)
        if worker in self._free:
            self._free.remove(worker)
        if not self._is_closed:
            self._on_death()
            replacing = asyncio.create_task(self._replace(worker))
            self._upkeep.add(replacing)
            replacing.add_done_callback(self._upkeep.discard)
            self._dispatch()  # what it was at counts as being decoded no more

    async def _replace(self, worker: WorkerProcess) -> None:
        await asyncio.to_thread(_wait_for, [worker])
        self._workers.discard(worker)
        logger.warning(
            "decode worker %d ended with %s; starting another", worker.process.pid, worker.process.returncode
        )
        while True:
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
            try:
                await self._start_one()
            except OSError as error:
                logger.error("a decode worker cannot be started, trying again in %g s: %s", self._pause_s, error)
            else:
                return

    async def _start_one(self) -> None:
        worker = WorkerProcess(self._limits, self._freed, self._ended, self._decoded)
        await worker.start(self._spec, self._slots)
        self._workers.add(worker)


def _wait_for(workers: list[WorkerProcess]) -> None:
    for worker in workers:
        worker.process.wait()
