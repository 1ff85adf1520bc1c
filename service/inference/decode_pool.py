"""The decode workers: each takes one image after another, in turns between requests, and is replaced when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from rankone.model.errors import RankoneError
from rankone.model.preprocessing import ImageRejected
from rankone.service.errors import Problem
from rankone.service.inference.decode_process import DecodeProcess, WorkerDied, WorkerKilled
from rankone.service.inference.decode_worker import DecodeOptions
from rankone.service.inference.job import FairQueue, Job, Task
from rankone.service.inference.shared import CpuArbiter, Slots

logger = logging.getLogger("rankone")

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 5.0
"""Between two attempts to start a worker."""
_START_S: Final = 60.0
_MAX_KILLS: Final = 2
"""Workers that an image may lose to signals from outside."""
_RETRY_AFTER_S: Final = 5


class DecodersFailed(RankoneError, RuntimeError):
    """The decode workers do not start."""


class DecodePool:
    """Decodes the images of jobs in `num_workers` processes, each when `arbiter` says that it may be begun.

    `put` takes each decoded image whose job still wants it, with its slot; `on_death` is called for each worker that died.
    """

    def __init__(
        self,
        options: DecodeOptions,
        slots: Slots,
        num_workers: int,
        arbiter: CpuArbiter,
        put: Callable[[Task], None],
        on_death: Callable[[], None],
    ) -> None:
        self._options, self._slots, self._num_workers = options, slots, num_workers
        self._arbiter, self._put, self._on_death = arbiter, put, on_death
        self._queue = FairQueue()
        self._ready: set[DecodeProcess] = set()
        self._all_ready = asyncio.Event()
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Starts the workers and returns when all are ready. Call `close` even if this fails.

        Raises:
            DecodersFailed: they are not ready within a minute.
        """
        self._keepers = [asyncio.create_task(self._keep_worker()) for _ in range(self._num_workers)]
        try:
            await asyncio.wait_for(self._all_ready.wait(), _START_S)
        except TimeoutError:
            raise DecodersFailed("the decode workers did not start; the log says why") from None

    @property
    def is_alive(self) -> bool:
        """At least one worker is ready."""
        return bool(self._ready)

    @property
    def is_complete(self) -> bool:
        """All workers are ready."""
        return len(self._ready) == self._num_workers

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers that are ready."""
        return [worker.process.pid for worker in self._ready if worker.process is not None]

    def submit(self, job: Job) -> None:
        """Queues the images of a job."""
        for task in job.tasks:
            self._queue.put_nowait(task)

    def discard(self, job: Job) -> None:
        """Forgets the waiting images of a job; one that is being decoded is dropped afterwards."""
        self._queue.discard(job)

    async def close(self) -> None:
        """Ends the workers; waiting images are not decoded."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    async def _keep_worker(self) -> None:
        """Runs one worker after another."""
        pause_s = _FIRST_PAUSE_S
        while True:
            worker = DecodeProcess(self._options, self._slots)
            try:
                await worker.start()
                pause_s = _FIRST_PAUSE_S
                await self._use(worker)
            except (OSError, WorkerDied) as error:
                logger.error("a decode worker cannot be started, trying again in %g s: %r", pause_s, error)
            except Exception as error:
                logger.error("a decode worker is replaced after a fault of the service", exc_info=error)
            finally:
                await worker.stop()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _use(self, worker: DecodeProcess) -> None:
        """Decodes with this worker until it dies."""
        self._ready.add(worker)
        if self.is_complete:
            self._all_ready.set()
        decoding = asyncio.create_task(self._decode_images(worker))
        try:
            await asyncio.wait({decoding, worker.ended}, return_when=asyncio.FIRST_COMPLETED)
            if decoding.done():
                decoding.result()  # raises a fault of ours, of which no worker died
            self._on_death()
            assert worker.process is not None
            logger.warning("decode worker %d died; starting another", worker.process.pid)
        finally:
            self._ready.discard(worker)
            decoding.cancel()

    async def _decode_images(self, worker: DecodeProcess) -> None:
        with contextlib.suppress(WorkerDied):
            while True:
                slot = await self._slots.get()
                is_lent = False
                try:
                    task = await self._queue.get()
                    is_lent = await self._decode(worker, task, slot)
                finally:
                    if not is_lent:
                        self._slots.put_nowait(slot)

    async def _decode(self, worker: DecodeProcess, task: Task, slot: int) -> bool:
        """Whether the image is now in the slot and on its way to the engine."""
        job = task.job
        try:
            async with self._arbiter.decoding():
                if job.is_over:
                    return False
                task.thumbnail = await worker.decode(task.data, slot, wants_thumbnail=job.wants_thumbnails)
        except (WorkerDied, asyncio.CancelledError):  # the worker died before it began the image: for another one
            self._queue.put_nowait(task)
            raise
        except WorkerKilled:
            self._try_again(task)
            raise WorkerDied from None
        except ImageRejected as error:
            job.reject(task, error)
            return False
        job.decoded(task)
        if not job.wants_engine:
            return False
        task.slot = slot
        self._put(task)
        return True

    def _try_again(self, task: Task) -> None:
        """Queues the image of a killed worker again, once: it may be what the machine has no memory for."""
        task.num_kills += 1
        if task.num_kills < _MAX_KILLS:
            self._queue.put_nowait(task)
            return
        reason = f"image {task.index}: its decoder was killed twice, for instance for want of memory; try again later"
        task.job.fail(Problem(503, reason, retry_after_s=_RETRY_AFTER_S))
