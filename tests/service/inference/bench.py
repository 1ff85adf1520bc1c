"""A batcher with an engine of the test's own, which runs a batch when the test lets it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import numpy as np

from rankone.model.engine import Outputs
from rankone.model.engine.base import Batch, Images, Precision
from rankone.service.inference.batcher import Batcher
from rankone.service.inference.engine_thread import EngineThread
from rankone.service.inference.job import Job, Task
from rankone.service.inference.policy import BatchPolicy, LatencyModel
from rankone.service.inference.shared import CpuArbiter, Slots
from rankone.service.observe.metrics import Metrics

SHAPE = (3, 2, 2)
NUM_SLOTS = 64


class Gate:
    """An engine that answers with the first value of each image; each run waits for `open`."""

    name, provider = "gate", "test"
    precision: Precision = "float32"

    def __init__(self) -> None:
        self.batches: list[Images] = []
        self.started, self.open = threading.Semaphore(0), threading.Semaphore(0)
        self.fault: Callable[[Images], BaseException | None] = lambda _: None

    def run(self, images: Batch, *, features: bool = False) -> Outputs:
        pixels = np.array(images)
        self.batches.append(pixels)
        self.started.release()
        assert self.open.acquire(timeout=30)
        if (fault := self.fault(pixels)) is not None:
            raise fault
        return Outputs(pixels[:, 0, 0, :1].copy(), features=pixels[:, 0, :1].copy() if features else None)

    def close(self) -> None: ...


class Bench:
    """A batcher with its surroundings, and images whose pixels are all one number.

    By its latency model, one image takes `image_s`, and each other one of its batch half of that.
    """

    def __init__(self, policy: BatchPolicy, image_s: float = 0.1, pause_s: float = 0.0) -> None:
        self.num_deaths = 0
        self.engine, self.thread, self.slots = Gate(), EngineThread(self.bury), Slots(NUM_SLOTS, SHAPE)
        latency = LatencyModel((1, 2), (image_s, 1.5 * image_s))
        self.arbiter = CpuArbiter(pause_s)
        self.batcher = Batcher(self.engine, self.thread, self.slots, policy, latency, self.arbiter, Metrics())

    def bury(self) -> None:
        self.num_deaths += 1

    def job(self, *values: float, deadline_s: float = 60.0, wants_features: bool = False) -> Job:
        job = Job([b""] * len(values), time.perf_counter() + deadline_s, wants_features=wants_features)
        for task, value in zip(job.tasks, values, strict=True):
            self.put(task, value)
        return job

    def put(self, task: Task, value: float) -> None:
        task.slot = self.slots.get_nowait()
        self.slots[task.slot][:] = value
        task.job.decoded(task)
        self.batcher.put(task)

    async def started(self) -> None:
        assert await asyncio.to_thread(self.engine.started.acquire, timeout=30)

    async def settle(self) -> None:
        """Lets everything that can happen without the engine happen."""
        await asyncio.sleep(0.05)

    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.engine.batches]

    async def close(self) -> None:
        self.engine.open.release(1000)
        await self.batcher.close()
        self.thread.close()


def answer(job: Job) -> list[float]:
    return [float(value) for value in job.done.result().embedding[:, 0]]
