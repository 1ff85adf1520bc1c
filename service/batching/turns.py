"""Whose the processor is, where the engine and the decoders share one.

An engine splits a layer between its threads, and all of them wait for the one that a decoder has displaced: beside a busy
engine, decoding costs several times its processor time. So no image is begun while a batch runs, as many are begun between two
batches as make a full one, and the engine waits a little for those. After a while they are begun beside it all the same: a long
batch loses little, and whoever sent what cannot be decoded is not to wait for its end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Turns:
    """Between a batcher and its decoders, on the event loop.

    Args:
        pause_s: how long batches, one after another, keep images from being begun; 0 where the engine has its own processor.
        size: of a full batch.
    """

    def __init__(self, pause_s: float, size: int) -> None:
        self._pause_s, self._size = pause_s, size
        self._num_batches, self._taken_at = 0, 0.0
        self.num_waiting: Callable[[], int] = lambda: 0
        """Images that are decoded; the batcher knows."""
        self.num_decoding: Callable[[], int] = lambda: 0
        """Images that are being decoded; the decoders know."""
        self.num_queued: Callable[[], int] = lambda: 0
        """Images that wait to be decoded; the decoders know."""
        self.on_decoders: Callable[[], None] = lambda: None
        """Called when they may go on."""

    @property
    def is_shared(self) -> bool:
        """There is one processor for both."""
        return self._pause_s > 0

    @property
    def num_unrun(self) -> int:
        """Images that have come and that the engine has not been given."""
        return self.num_waiting() + self.num_decoding() + self.num_queued()

    def may_begin(self) -> bool:
        """Whether another image may be begun."""
        if not self.is_shared:
            return True
        if self._num_batches:
            return time.perf_counter() - self._taken_at >= self._pause_s
        return self.num_waiting() + self.num_decoding() < self._size

    def take(self) -> None:
        """A batch is put together for the engine."""
        if not self._num_batches:
            self._taken_at = time.perf_counter()
        self._num_batches += 1
        asyncio.get_running_loop().call_later(self._pause_s, self._tell)

    def give_back(self) -> None:
        """It has been run, or will not be."""
        self._num_batches -= 1
        self._tell()

    def _tell(self) -> None:
        self.on_decoders()
