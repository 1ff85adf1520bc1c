"""What requests call: encoded images in, the network's outputs out, if they can be there in time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from rankone.model.engine import Outputs
from rankone.service.errors import Problem
from rankone.service.inference.batcher import Batcher
from rankone.service.inference.decode_pool import DecodePool
from rankone.service.inference.job import Job
from rankone.service.observe.context import current

_SAFETY: Final = 0.85
"""A request is admitted only if its answer is expected within this fraction of its timeout: speed varies, and a missed
deadline wastes time that others needed."""


class QueueFull(Problem):
    """The service is too busy for this request; `retry_after_s` says when to try again."""

    def __init__(self, reason: str, wait_s: float) -> None:
        retry_after_s = max(1, math.ceil(wait_s))
        super().__init__(429, f"{reason}; try again in {retry_after_s} s", retry_after_s=retry_after_s)


class Admission:
    """Counts images from before they are decoded until they are answered, and admits what can be answered in time.

    Args:
        max_images: in work at once.
        images_per_s: measures how many images the service can answer in a second.
    """

    def __init__(self, max_images: int, images_per_s: Callable[[], float]) -> None:
        self._max_images, self._images_per_s = max_images, images_per_s
        self._requests: Counter[int] = Counter()
        """Requests in work, by their number of images."""
        self.num_images = 0

    def check(self, num_images: int, time_left_s: float) -> None:
        """Checks whether a request of `num_images` can be answered within `time_left_s`.

        Raises:
            QueueFull: it cannot.
        """
        per_s = self._images_per_s()
        if self.num_images + num_images > self._max_images:
            raise QueueFull(
                f"{self.num_images} images are in work, and {num_images} more would exceed the limit of {self._max_images}",
                self.num_images / per_s,
            )
        # requests take turns: so many images run, at most, before the last one of this request
        num_ahead = sum(count * min(size, num_images) for size, count in self._requests.items())
        wait_s, limit_s = (num_ahead + num_images) / per_s, _SAFETY * time_left_s
        if num_ahead and wait_s > limit_s:  # an idle service cannot do better later
            raise QueueFull(
                f"the answer would take {wait_s:.1f} s, too long for this request's timeout", wait_s - limit_s
            )

    @contextmanager
    def reserve(self, num_images: int, time_left_s: float) -> Iterator[None]:
        """Counts these images while the block runs.

        Raises:
            QueueFull: see `check`; nothing was counted.
        """
        self.check(num_images, time_left_s)
        self._requests[num_images] += 1
        self.num_images += num_images
        try:
            yield
        finally:
            self.num_images -= num_images
            self._requests[num_images] -= 1


@dataclass(frozen=True)
class Inferred(Outputs):
    """The network's outputs for some images and, where they are wanted, their thumbnails."""

    thumbnails: Sequence[bytes | None] = ()


class Inference:
    """Runs the images of requests through decoders and engine."""

    def __init__(self, admission: Admission, decoders: DecodePool, batcher: Batcher) -> None:
        self.admission, self._decoders, self._batcher = admission, decoders, batcher

    def check_room(self) -> None:
        """Checks whether one more image could be answered before the current request's deadline.

        Raises:
            QueueFull: it could not.
        """
        self.admission.check(1, current().left_s)

    async def __call__(self, images: Sequence[bytes], *, thumbnails: bool = False, features: bool = False) -> Inferred:
        """The outputs for the encoded images of the current request, in its order; with their features only if asked.

        When the calling task is cancelled, all work for these images is dropped.

        Raises:
            QueueFull: the service is too busy.
            InputsRejected: names every image that cannot be used.
            DeadlinePassed: the answer would come too late.
            EngineError: the engine failed on a batch with images of this request.
        """
        context = current()
        context.num_images += len(images)
        with self.admission.reserve(len(images), context.left_s):
            job = Job(images, context.deadline, wants_thumbnails=thumbnails, wants_features=features)
            self._decoders.submit(job)
            try:
                outputs = await job.done
            finally:
                self._decoders.discard(job)
                self._batcher.discard(job)
        context.parts |= job.parts
        return Inferred(**outputs.arrays, thumbnails=[task.thumbnail for task in job.tasks])
