"""Turns of decoders and engine on one CPU.

An engine splits each layer between its threads, and all of them wait for a thread that a decoder has displaced. So, where the
engine runs on the CPU, no image is begun while a batch runs, and a batch waits a moment for images that are being decoded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager


class CpuArbiter:
    """Tells decoders when to begin an image, and the batcher whether images are being decoded.

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
