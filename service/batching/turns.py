"""Whose the processor is, where the engine and the decoders share one.

An engine splits a layer between its threads, and all of them wait for the one that a decoder has displaced: beside a busy
engine, decoding costs several times its processor time. So no image is begun while a batch runs, as many are begun between two
batches as make a full one, and a batch that is to have more than there are waits a little for those. A batch that takes long
does not keep images from being begun to its end: it loses little, and whoever sent what cannot be decoded need not wait for it.
Nor do images that take long to decode keep others from being begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Turns:
    """Between a batcher and its decoders, on the event loop.

    Args:
        pause_s: how long batches, or images begun before, keep images from being begun; 0 where the engine has a processor
            of its own.
        size: of a full batch.
    """

    def __init__(self, pause_s: float, size: int) -> None:
        self._pause_s, self._size = pause_s, size
        self._num_batches = 0
        self._timer: asyncio.TimerHandle | None = None
        self.is_overdue = False
        """The decoders' turn has not come for too long: they go on, and no batch is prepared that would put it off further."""
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
        if not self.is_shared or self.is_overdue:
            return True
        if not self._num_batches and self.num_waiting() + self.num_decoding() < self._size:
            return True
        self._watch()
        return False

    def take(self) -> None:
        """A batch is put together for the engine."""
        if self.is_shared:
            self._watch()
        self._num_batches += 1

    def give_back(self) -> None:
        """It has been run, or will not be."""
        self._num_batches -= 1
        if not self._num_batches:
            self.is_overdue = False
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        self.on_decoders()

    def _watch(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._pause_s, self._miss)

    def _miss(self) -> None:
        self.is_overdue = True
        self.on_decoders()
