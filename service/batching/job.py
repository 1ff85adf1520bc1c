"""The images of one request on their way, and what became of them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rankone.model.engine import Outputs
from rankone.model.preprocessing import ImageRejected
from rankone.service.errors import InputsRejected, Rejection


@dataclass(frozen=True)
class Parts:
    """Where the time of one image went, in seconds: until it was decoded, until its batch began, and its batch's run."""

    decode: float
    queue: float
    engine: float


@dataclass(eq=False)
class Task:
    """One image of a job: encoded, then in a slot of pixels, then answered."""

    job: Job
    index: int
    data: bytes
    slot: int | None = None
    thumbnail: bytes | None = None
    """A small JPEG, once it is decoded and where its job wants one."""
    decoded_at: float = 0.0


class Job:
    """The images of one request. All of it happens on the event loop; `done` holds the outputs in the request's order.

    Every image is decoded even when one before it was refused, so that all at fault are named; none of them
    goes to the engine any more.
    """

    def __init__(self, images: list[bytes], deadline: float, *, wants_thumbnails: bool = False) -> None:
        self.deadline = deadline
        """By `time.perf_counter`."""
        self.wants_thumbnails = wants_thumbnails
        self.started_at = time.perf_counter()
        self.tasks = [Task(self, index, data) for index, data in enumerate(images)]
        self.done: asyncio.Future[Outputs] = asyncio.get_running_loop().create_future()
        self.parts = Parts(0, 0, 0)
        """Of the image that was answered last."""
        self._rejections: list[Rejection] = []
        self._num_undecoded = len(images)
        self._embeddings: list[npt.NDArray[np.float32] | None] = [None] * len(images)
        self._logits: list[npt.NDArray[np.float32] | None] = [None] * len(images)
        self._num_unanswered = len(images)

    @property
    def is_over(self) -> bool:
        """It has its answer, or nobody waits for it any more."""
        return self.done.done()

    @property
    def wants_engine(self) -> bool:
        """Its images are worth running."""
        return not self.is_over and not self._rejections

    def decoded(self, task: Task) -> None:
        """The image is in its slot."""
        task.decoded_at = time.perf_counter()
        self._one_decoded()

    def reject(self, task: Task, error: ImageRejected) -> None:
        """The image cannot be used; the request fails once all its images have been looked at."""
        self._rejections.append(Rejection(task.index, error))
        self._one_decoded()

    def answer(
        self,
        task: Task,
        embedding: npt.NDArray[np.float32],
        logits: npt.NDArray[np.float32] | None,
        started_at: float,
        ended_at: float,
    ) -> None:
        """The outputs of one image, from a batch that ran from `started_at` to `ended_at`."""
        self._embeddings[task.index], self._logits[task.index] = embedding, logits
        self._num_unanswered -= 1
        self.parts = Parts(task.decoded_at - self.started_at, started_at - task.decoded_at, ended_at - started_at)
        if self._num_unanswered == 0 and not self.is_over:
            self.done.set_result(
                Outputs(_stacked(self._embeddings), None if logits is None else _stacked(self._logits))
            )

    def fail(self, error: Exception) -> None:
        """The request as a whole has failed."""
        if not self.is_over:
            self.done.set_exception(error)

    def _one_decoded(self) -> None:
        self._num_undecoded -= 1
        if self._num_undecoded == 0 and self._rejections:
            self.fail(InputsRejected(self._rejections))


def _stacked(rows: list[npt.NDArray[np.float32] | None]) -> npt.NDArray[np.float32]:
    whole = [row for row in rows if row is not None]
    return whole[0][np.newaxis] if len(whole) == 1 else np.stack(whole)
