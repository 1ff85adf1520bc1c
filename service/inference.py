"""The way of an image through the service: admitted, decoded, batched, run, and back in its request's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rankone.model.engine import Outputs
from rankone.service.batching.admission import Admission
from rankone.service.batching.batcher import Batcher
from rankone.service.batching.job import Job
from rankone.service.decoding.pool import DecodePool
from rankone.service.observe.context import current


@dataclass(frozen=True)
class Inferred(Outputs):
    """What the network says of some images, and a small JPEG of each where they are wanted."""

    thumbnails: Sequence[bytes | None]


class Inference:
    """The network as requests see it: encoded images in, outputs out."""

    def __init__(self, admission: Admission, pool: DecodePool, batcher: Batcher) -> None:
        self._admission, self._pool, self._batcher = admission, pool, batcher

    def check_room(self) -> None:
        """Looks whether one image more could be answered in time for the current request.

        Raises:
            QueueFull: it could not.
        """
        self._admission.check(1, current().left_s)

    async def __call__(self, images: Sequence[bytes], *, thumbnails: bool = False) -> Inferred:
        """The outputs for the encoded images of the current request, in its order; each image is decoded once.

        Raises:
            QueueFull: too many images are in work already.
            InputsRejected: images that cannot be used, every one at fault.
            DeadlinePassed: the answer would come too late.
            EngineError: the engine failed on a batch with images of this request.
        """
        context = current()
        context.num_images += len(images)
        with self._admission.reserve(len(images), context.left_s):
            job = Job(list(images), context.deadline, wants_thumbnails=thumbnails)
            self._pool.submit(job)
            try:
                outputs = await job.done
            except BaseException:
                self._pool.discard(job)
                self._batcher.discard(job)
                raise
        parts = job.parts
        context.parts |= {"decode": parts.decode, "queue": parts.queue, "engine": parts.engine}
        return Inferred(outputs.embedding, outputs.logits, [task.thumbnail for task in job.tasks])
