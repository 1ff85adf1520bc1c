"""Encoded images to the network's input, off the event loop, a few at a time."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import anyio.to_thread
import numpy as np
import numpy.typing as npt

from model.preprocessing import ImageRejected, Limits, Preprocessing, preprocess
from service.rejections import InputsRejected, Rejection


class Decoder:
    """Preprocesses the images of all requests in at most `threads` threads at once. Pillow lets go of the GIL."""

    def __init__(self, spec: Preprocessing, limits: Limits, threads: int) -> None:
        self._spec, self._limits = spec, limits
        self._slots = anyio.CapacityLimiter(threads)

    async def decode(self, images: Sequence[bytes]) -> npt.NDArray[np.float32]:
        """The images of one request, (n, 3, size, size) float32.

        Raises:
            InputsRejected: with every image at fault, not only the first.
        """
        size = self._spec.size
        pixels = np.empty((len(images), 3, size, size), np.float32)
        rejections: list[Rejection] = []

        async def decode_one(index: int) -> None:
            try:
                pixels[index] = await anyio.to_thread.run_sync(
                    preprocess, images[index], self._spec, self._limits, limiter=self._slots
                )
            except ImageRejected as error:
                rejections.append(Rejection(index, error))

        async with anyio.create_task_group() as group:
            for index in range(len(images)):
                group.start_soon(decode_one, index)
        if rejections:
            raise InputsRejected(rejections)
        return pixels
