"""Whose the processor is, where the engine and the decoders share one.

An engine splits a layer between its threads, and all of them wait for the one that a decoder has displaced: beside a busy
engine, decoding costs several times its processor time. So decoders pause while a batch runs, and the engine waits a little
for what they have begun. A long batch is shared all the same: it loses little, and whoever sent what cannot be decoded would
have to wait for its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Turns:
    """Between a batcher and its decoders, on the event loop.

    Args:
        longest_s: what takes longer is run beside the decoders; 0 where they have a processor of their own.
    """

    def __init__(self, longest_s: float = 0.0) -> None:
        self._longest_s = longest_s
        self.decoders_pause = False
        self.on_decoders: Callable[[], None] = lambda: None
        """Called when the decoders may go on."""
        self.num_decoding = 0
        """Images that are with the decoders or wait for one."""
        self.changed = asyncio.Event()
        """Set whenever the batcher has something to look at."""

    def decoding(self, change: int) -> None:
        """So many images more, or less, are to be decoded."""
        self.num_decoding += change
        self.changed.set()

    @contextmanager
    def engine(self, expected_s: float) -> Iterator[None]:
        """While the engine runs a batch that is expected to take so long."""
        self.decoders_pause = expected_s <= self._longest_s
        try:
            yield
        finally:
            self.decoders_pause = False
            self.on_decoders()
            self.changed.set()
