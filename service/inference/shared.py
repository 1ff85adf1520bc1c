"""What decode workers and engine share: memory for decoded pixels, and the CPU."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import numpy as np

from rankone.service.inference.decode_worker import Images, mapped

_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
"""A compromised worker cannot resize the memory, which would crash the service."""


class Slots(asyncio.LifoQueue[int]):
    """`count` arrays of `shape`, float32; a queue of the free ones.

    Each holds one image from when it is decoded until its batch is put together.

    Args:
        count: images that may be decoded and waiting at once.
        shape: of one image's pixels, (3, size, size).
    """

    def __init__(self, count: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.count = count
        self.descriptor = os.memfd_create("rankone-pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, count * int(np.prod(shape)) * np.dtype(np.float32).itemsize)
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _SEALS)
        self._pixels = mapped(self.descriptor, count, shape)
        for slot in range(count):
            self.put_nowait(slot)

    def __getitem__(self, slot: int) -> Images:
        """The pixels in a slot."""
        pixels: Images = self._pixels[slot]
        return pixels

    def close(self) -> None:
        """Lets go of the memory, which is freed when the last worker has ended."""
        del self._pixels
        os.close(self.descriptor)


class CpuArbiter:
    """Tells decoders when to begin an image, and the batcher whether images are being decoded.

    An engine splits each layer between its threads, and all of them wait for a thread that a decoder has displaced. So, where
    the engine runs on the CPU, no image is begun while a batch runs, and a batch waits a moment for images being decoded.

    Args:
        pause_s: how long one batch may keep decoders from beginning; 0 where the engine does not run on the CPU. It bounds
            how long an image that cannot be used waits for its refusal.
    """

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s
        self._num_decoding = 0
        self._may_decode = asyncio.Event()
        self._may_decode.set()

    @property
    def is_decoding(self) -> bool:
        """Images are being decoded on the engine's CPU."""
        return self._num_decoding > 0 and self._pause_s > 0

    @asynccontextmanager
    async def decoding(self) -> AsyncIterator[None]:
        """Waits until an image may be begun; it is decoded while the block runs."""
        await self._may_decode.wait()
        self._num_decoding += 1
        try:
            yield
        finally:
            self._num_decoding -= 1

    @contextmanager
    def running(self) -> Iterator[None]:
        """A batch runs while the block does."""
        if not self._pause_s:
            yield
            return
        self._may_decode.clear()
        timer = asyncio.get_running_loop().call_later(self._pause_s, self._may_decode.set)
        try:
            yield
        finally:
            timer.cancel()
            self._may_decode.set()
