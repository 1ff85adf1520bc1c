"""Shared memory for decoded pixels: decode workers write it, the batcher reads it."""

from __future__ import annotations

import asyncio
import fcntl
import os
from typing import Final

import numpy as np

from rankone.service.inference.decode_worker import Images, mapped

_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
"""A compromised worker cannot resize the memory, which would crash the service."""


class Slots:
    """`count` arrays of `shape`, float32. Each holds one image from when it is decoded until its batch is put together.

    Args:
        count: images that may be decoded and waiting at once.
        shape: of one image's pixels, (3, size, size).
    """

    def __init__(self, count: int, shape: tuple[int, ...]) -> None:
        self.shape, self.count = shape, count
        self.descriptor = os.memfd_create("rankone-pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, count * int(np.prod(shape)) * np.dtype(np.float32).itemsize)
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _SEALS)
        self._pixels = mapped(self.descriptor, count, shape)
        self._free = asyncio.LifoQueue[int]()
        for slot in range(count):
            self._free.put_nowait(slot)

    def __getitem__(self, slot: int) -> Images:
        """The pixels in a slot."""
        pixels: Images = self._pixels[slot]
        return pixels

    @property
    def num_free(self) -> int:
        """Slots that are not in use."""
        return self._free.qsize()

    async def acquire(self) -> int:
        """Waits for a free slot and takes it."""
        return await self._free.get()

    def release(self, slot: int) -> None:
        """Returns a slot."""
        self._free.put_nowait(slot)

    def close(self) -> None:
        """Lets go of the memory, which is freed when the last worker has ended."""
        del self._pixels
        os.close(self.descriptor)
