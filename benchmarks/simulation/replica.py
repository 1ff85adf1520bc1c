"""One simulated service. Admission, fair queues, batch size and latency model are the service's own classes.

What the service does with processes, threads and asyncio happens here at simulated times: decoders take images in turns and
begin none while a batch runs on their CPU, a free engine takes what waits, and late images give way.
See `service/inference/batcher.py`, `decode_pool.py` and `shared.py`, which this follows.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias, cast

import simpy

from rankone.service.inference.batcher import PATIENCE
from rankone.service.inference.inference import Admission, QueueFull
from rankone.service.inference.job import FairQueue, Job, Task
from rankone.service.inference.policy import BatchPolicy, LatencyModel

Process: TypeAlias = Generator[simpy.Event, Any, None]


class Fate(Enum):
    """What became of a request."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """429: too many images in work, or no answer in time."""
    LATE = "late"
    """504: not answered by its deadline, or given up for requests that still could be."""
    LOST = "lost"
    """The service died with it."""


@dataclass(eq=False, slots=True)
class Request:
    """One request of `num_images`, which wants its answer by `deadline`; times are simulated seconds."""

    arrived_at: float
    deadline: float
    num_images: int = 1
    fate: Fate | None = None
    ended_at: float = 0.0
    num_tries: int = 1
    num_left: int = field(default=0)
    on_end: Callable[[Request], None] = lambda _: None

    @property
    def seconds(self) -> float:
        """From arrival to end."""
        return self.ended_at - self.arrived_at

    @property
    def is_over(self) -> bool:
        """It has its answer or an error."""
        return self.fate is not None


@dataclass(frozen=True)
class Machine:
    """What was measured of one service and its machine.

    Args:
        sizes: sizes of batches whose time was measured.
        seconds: of the engine alone, for each of them.
        decode_s: processor time of decoding an image.
        own_s: the service's own part of a request. Its thread displaces one of the engine's, so batches take it too.
        workers: decoders.
        policy: of batches.
        max_queue: images in work at once.
        pause_s: how long a batch may hold up decoders; 0 where the engine does not run on the CPU.
    """

    sizes: Sequence[int]
    seconds: Sequence[float]
    decode_s: float = 0.0
    own_s: float = 0.0
    workers: int = 2
    policy: BatchPolicy = field(default_factory=lambda: BatchPolicy(4))
    max_queue: int = 256
    pause_s: float = 0.25


class Replica:
    """A running service. `submit` takes requests; each ends with a fate, and `on_end` of the request is called."""

    def __init__(self, env: simpy.Environment, machine: Machine) -> None:
        self._env, self._machine = env, machine
        self._engine = LatencyModel(machine.sizes, machine.seconds)
        """How long batches really take; `_latency` is what the service believes."""
        self._latency = LatencyModel(machine.sizes, machine.seconds)
        self._admission = Admission(machine.max_queue, self._images_per_s)
        self._undecoded, self._decoded = FairQueue(), FairQueue()
        self._num_slots = 2 * machine.policy.max_batch + machine.workers
        self._num_free, self._num_decoding, self._may_decode = machine.workers, 0, True
        self._taken = deque[Task]()
        """By decoders that may not begin yet."""
        self._arrived = env.event()
        self._requests: dict[Request, Any] = {}
        self.is_alive = True
        env.process(self._run_batches())

    @property
    def num_images(self) -> int:
        """Images in work."""
        return self._admission.num_images

    def submit(self, request: Request) -> None:
        """Admits a request and queues its images, or refuses it."""
        reserved = self._admission.reserve(request.num_images, request.deadline - self._env.now)
        try:
            reserved.__enter__()
        except QueueFull:
            self._end(request, Fate.REFUSED)
            return
        self._requests[request] = reserved
        request.num_left = request.num_images
        for index in range(request.num_images):
            self._undecoded.put_nowait(Task(cast(Job, request), index, b""))
        self._begin_decoding()
        self._env.timeout(request.deadline - self._env.now, request).callbacks.append(self._give_up)

    def die(self) -> None:
        """Ends at once; all requests in work are lost."""
        self.is_alive = False
        for request in list(self._requests):
            self._end(request, Fate.LOST)

    def abandon(self) -> list[Request]:
        """Ends at once, in silence; the requests in work, of which nobody hears anything."""
        self.is_alive = False
        abandoned = list(self._requests)
        self._requests.clear()
        return abandoned

    def _give_up(self, deadline: simpy.Event) -> None:
        if (request := deadline.value) in self._requests:
            self._end(request, Fate.LATE)

    def _images_per_s(self) -> float:
        size = self._machine.policy.max_batch
        return size / self._latency.predict(size)

    def _end(self, request: Request, fate: Fate) -> None:
        request.fate, request.ended_at = fate, self._env.now
        if reserved := self._requests.pop(request, None):
            reserved.__exit__(None, None, None)
            for queue in (self._undecoded, self._decoded):
                dropped = queue.discard(cast(Job, request))
                self._num_slots += len(dropped) if queue is self._decoded else 0
        request.on_end(request)

    # decoders

    def _begin_decoding(self) -> None:
        """Free decoders take a slot and an image, and begin when they may."""
        while self._num_free and self._num_slots and not self._undecoded.empty():
            self._num_free -= 1
            self._num_slots -= 1
            self._taken.append(self._undecoded.get_nowait())
        while self._may_decode and self._taken:
            self._num_decoding += 1
            self._env.process(self._decode(self._taken.popleft()))

    def _decode(self, task: Task) -> Process:
        if not task.job.is_over:
            yield self._env.timeout(self._machine.decode_s)
        self._num_decoding -= 1
        self._num_free += 1
        if task.job.is_over or not self.is_alive:
            self._num_slots += 1
        else:
            task.decoded_at = self._env.now
            self._decoded.put_nowait(task)
            if not self._arrived.triggered:
                self._arrived.succeed()
        self._begin_decoding()

    # batches

    @property
    def _is_decoding(self) -> bool:
        return self._num_decoding > 0 and self._machine.pause_s > 0

    def _run_batches(self) -> Process:
        while True:
            tasks: list[Task] = []
            yield from self._collect(tasks)
            if not self.is_alive:
                return
            if wanted := self._wanted(tasks):
                yield from self._run(wanted)
            self._num_slots += len(tasks)
            self._may_decode = True
            self._begin_decoding()

    def _collect(self, tasks: list[Task]) -> Process:
        """Waits for an image; takes it with the others that wait, are being decoded, or come within the window."""
        while self._decoded.empty():
            yield from self._wait(math.inf)
        tasks.append(self._decoded.get_nowait())
        policy = self._machine.policy
        ends_at = tasks[0].decoded_at + policy.window_s
        if self._is_decoding:
            patience_s = PATIENCE * self._latency.predict(1 + self._decoded.qsize())
            ends_at = max(ends_at, self._env.now + patience_s)
        while len(tasks) < policy.max_batch and (policy.window_s or self._is_decoding or not self._decoded.empty()):
            if not self._decoded.empty():
                tasks.append(self._decoded.get_nowait())
            elif self._env.now < ends_at:
                yield from self._wait(ends_at - self._env.now)
            else:
                return

    def _wait(self, seconds: float) -> Process:
        """Until an image is decoded, `seconds` at most."""
        self._arrived = self._env.event()
        yield self._arrived if seconds == math.inf else self._arrived | self._env.timeout(seconds)

    def _wanted(self, tasks: list[Task]) -> list[Task]:
        """The images to run; late ones give way if others can be answered sooner without them."""
        wanted = [task for task in tasks if not task.job.is_over]
        ends_at = self._env.now + self._latency.predict(self._machine.policy.padded(len(wanted)))
        late = [task for task in wanted if task.job.deadline < ends_at]
        if len(late) < len(wanted) or not self._decoded.empty():
            for request in {cast(Request, task.job): None for task in late}:
                self._end(request, Fate.LATE)
        return [task for task in wanted if not task.job.is_over]

    def _run(self, tasks: list[Task]) -> Process:
        machine, size = self._machine, self._machine.policy.padded(len(tasks))
        self._may_decode = not machine.pause_s
        seconds = self._engine.predict(size) + machine.own_s * len(tasks)
        if 0 < machine.pause_s < seconds:
            yield self._env.timeout(machine.pause_s)
            self._may_decode = True
            self._begin_decoding()
        yield self._env.timeout(seconds - (machine.pause_s if machine.pause_s < seconds else 0))
        if not self.is_alive:
            return
        self._latency.observe(size, seconds)
        for task in tasks:
            request = cast(Request, task.job)
            request.num_left -= 1
            if not request.num_left and not request.is_over:
                self._end(request, Fate.ANSWERED)
