"""Images to vectors by the decoders and the engine of the service, so that they are the same to the last bit."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

from rankone.model.bundle import open_bundle
from rankone.model.errors import RankoneError
from rankone.service.errors import InputsRejected, Problem
from rankone.service.job.shard import Rejected, Row
from rankone.service.job.sources import JobImage, read
from rankone.service.observe.context import RequestContext, enter
from rankone.service.observe.metrics import Metrics
from rankone.service.routes.checks import of_length
from rankone.service.runtime import start_network
from rankone.service.settings import Settings

_NOT_TO_BE_HAD: Final = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
"""Of one image. Any other error of the system is of its disk or store."""


class JobFailed(RankoneError, RuntimeError):
    """The job ended before all of its images were embedded; the same command resumes it."""


class Embedder:
    """A bundle that runs in this process. A context manager.

    Args:
        settings: of a service; what concerns requests and indexes has no effect.
        dim: numbers of a vector: all of the bundle, or fewer.
        thumbnails: whether small JPEGs are made, too.

    Raises:
        BundleError, EngineError, DecodersFailed: it cannot run; raised when the block is entered.
    """

    def __init__(self, settings: Settings, dim: int, *, thumbnails: bool) -> None:
        self._settings, self._dim, self._thumbnails = settings, dim, thumbnails
        self._runner = asyncio.Runner()
        self._ending = AsyncExitStack()

    def __enter__(self) -> Self:
        self._runner.__enter__()
        try:
            self._runner.run(self._start())
        except BaseException:
            self._runner.run(self._ending.aclose())
            self._runner.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._runner.run(self._ending.aclose())
        self._runner.close()

    def embed(self, images: Sequence[JobImage]) -> tuple[list[Row], list[Rejected]]:
        """The rows of the images in the order given, and which images cannot be used.

        Raises:
            OSError: a disk or a store cannot be reached.
            JobFailed: the decoders or the engine failed.
        """
        try:
            found = self._runner.run(self._embed(images))
        except ExceptionGroup as group:  # of all that failed at once, the first says enough
            error = group.exceptions[0]
            if isinstance(error, Problem):
                raise JobFailed(error.detail) from error
            raise error from None
        return [one for one in found if isinstance(one, Row)], [one for one in found if isinstance(one, Rejected)]

    async def _start(self) -> None:
        bundle = await asyncio.to_thread(open_bundle, self._settings.bundle)
        network = await start_network(bundle, self._settings, Metrics(), self._ending)
        self._inference = network.inference
        in_work = 2 * self._settings.batch_policy.max_batch + self._settings.workers
        self._places = asyncio.Semaphore(min(in_work, self._settings.max_queue))

    async def _embed(self, images: Sequence[JobImage]) -> list[Row | Rejected]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._one(image)) for image in images]
        return [task.result() for task in tasks]

    async def _one(self, image: JobImage) -> Row | Rejected:
        async with self._places:
            enter(RequestContext("job"))
            max_bytes = self._settings.max_image_bytes
            try:
                data = await asyncio.to_thread(read, image, max_bytes)
                outputs = await self._inference([data], thumbnails=self._thumbnails)
            except InputsRejected as rejected:
                return Rejected(image.id, str(rejected.rejections[0]))
            except _NOT_TO_BE_HAD as error:
                return Rejected(image.id, f"it cannot be read: {error.strerror or error}")
            digest = hashlib.sha256(data).hexdigest()
            return Row(image.id, of_length(outputs, self._dim)[0], digest, outputs.thumbnails[0])
