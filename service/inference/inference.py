"""What requests call: encoded images in, the network's outputs out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rankone.model.engine import Outputs
from rankone.service.inference.admission import Admission
from rankone.service.inference.batcher import Batcher
from rankone.service.inference.decode_pool import DecodePool
from rankone.service.inference.job import Job
from rankone.service.observe.context import current


@dataclass(frozen=True)
class Inferred(Outputs):
    """The network's outputs for some images and, where they are wanted, their thumbnails."""

    thumbnails: Sequence[bytes | None] = ()


class Inference:
    """Runs the images of requests through decoders and engine."""

    def __init__(self, admission: Admission, decoders: DecodePool, batcher: Batcher) -> None:
        self._admission, self._decoders, self._batcher = admission, decoders, batcher

    def check_room(self) -> None:
        """Checks whether one more image could be answered before the current request's deadline.

        Raises:
            QueueFull: it could not.
        """
        self._admission.check(1, current().left_s)

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
        with self._admission.reserve(len(images), context.left_s):
            job = Job(images, context.deadline, wants_thumbnails=thumbnails, wants_features=features)
            self._decoders.submit(job)
            try:
                outputs = await job.done
            finally:
                self._decoders.discard(job)
                self._batcher.discard(job)
        parts = job.parts
        context.parts |= {"decode": parts.decode, "queue": parts.queue, "engine": parts.engine}
        return Inferred(**outputs.arrays, thumbnails=[task.thumbnail for task in job.tasks])
