"""The images of one request, what becomes of them, and a queue that is fair between requests."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rankone.model.engine import Outputs
from rankone.model.errors import RankoneError
from rankone.model.preprocessing import ImageRejected
from rankone.service.errors import InputsRejected


@dataclass(eq=False)
class Task:
    """One image of a job."""

    job: Job
    index: int
    data: bytes
    """As it was sent."""
    slot: int | None = None
    """Where its pixels are, from when it is decoded until its batch is put together."""
    thumbnail: bytes | None = None
    """A small JPEG, if its job wants one."""
    decoded_at: float = 0.0
    num_kills: int = 0
    """Decode workers that were killed from outside while they were at it."""


class Job:
    """One request's images; `done` resolves to their outputs, in the request's order. Used on the event loop only.

    Once an image is refused, none of the job's images is run any more, but all are decoded: the error names every bad one.

    Args:
        images: encoded.
        deadline: by `time.perf_counter`; no batch is run for a job that cannot keep it.
        wants_thumbnails: whether the decoders also make thumbnails.
        wants_features: whether the engine also gives out the local features.
    """

    def __init__(
        self, images: Sequence[bytes], deadline: float, *, wants_thumbnails: bool = False, wants_features: bool = False
    ) -> None:
        self.deadline, self.wants_thumbnails, self.wants_features = deadline, wants_thumbnails, wants_features
        self.started_at = time.perf_counter()
        self.tasks = [Task(self, index, data) for index, data in enumerate(images)]
        self.done: asyncio.Future[Outputs] = asyncio.get_running_loop().create_future()
        self.parts = dict[str, float]()
        """Where the time of the image went that was answered last: decoding, waiting for its batch, and the engine."""
        self._rejections: dict[int, RankoneError] = {}
        self._num_undecoded = self._num_unanswered = len(images)
        self._outputs: list[Outputs | None] = [None] * len(images)

    @property
    def is_over(self) -> bool:
        """The request has its outputs or an error, or was cancelled."""
        return self.done.done()

    @property
    def wants_engine(self) -> bool:
        """The job's decoded images should be run."""
        return not self.is_over and not self._rejections

    def decoded(self, task: Task) -> None:
        """The image has been decoded."""
        task.decoded_at = time.perf_counter()
        self._one_decoded()

    def reject(self, task: Task, error: ImageRejected) -> None:
        """The image cannot be used. The job fails once all of its images have been looked at."""
        self._rejections[task.index] = error
        self._one_decoded()

    def answer(self, task: Task, outputs: Outputs, started_at: float, ended_at: float) -> None:
        """Takes the outputs of one image, a batch of one, from a batch run between these times."""
        self._outputs[task.index] = outputs if self.wants_features else replace(outputs, features=None)
        self._num_unanswered -= 1
        self.parts = {
            "decode": task.decoded_at - self.started_at,
            "queue": started_at - task.decoded_at,
            "engine": ended_at - started_at,
        }
        if self._num_unanswered == 0 and not self.is_over:
            self.done.set_result(Outputs.joined([one for one in self._outputs if one is not None]))

    def fail(self, error: Exception) -> None:
        """Ends the job with an error, unless it has ended."""
        if not self.is_over:
            self.done.set_exception(error)

    def _one_decoded(self) -> None:
        self._num_undecoded -= 1
        if self._num_undecoded == 0 and self._rejections:
            self.fail(InputsRejected(self._rejections))


class FairQueue(asyncio.Queue[Task]):
    """An unbounded asyncio queue that serves jobs in turn: one image of each job, then a second one of each, and so on.

    Images of one job keep their order; a single image does not wait behind a request of 64.
    """

    _queue: OrderedDict[Job, deque[Task]]

    def discard(self, job: Job) -> list[Task]:
        """Removes all images of a job and returns them."""
        return list(self._queue.pop(job, ()))

    def qsize(self) -> int:
        """Images that wait."""
        return sum(map(len, self._queue.values()))

    # what asyncio.Queue leaves to its subclasses

    def _init(self, maxsize: int) -> None:  # noqa: ARG002
        self._queue = OrderedDict()

    def _put(self, task: Task) -> None:
        self._queue.setdefault(task.job, deque()).append(task)

    def _get(self) -> Task:
        job, tasks = self._queue.popitem(last=False)
        task = tasks.popleft()
        if tasks:
            self._queue[job] = tasks
        return task
