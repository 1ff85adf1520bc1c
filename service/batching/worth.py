"""Whether a batch is worth its wait."""

from __future__ import annotations

import logging
from typing import Final

from service.batching.latency import LatencyModel

logger = logging.getLogger("rankone")

_MUCH: Final = 0.1
"""Part of its time that a full batch saves, from which on as many go together as there are. One by one at this line, p99 is
5 % less at half of the capacity and 9 % more at three quarters, by simulation."""
_QUEUE_OF: Final = 2
"""Full batches; one that has another behind it runs for its throughput."""


class Worth:
    """How many of the images that wait the next batch is to have.

    On a GPU a batch takes hardly longer than an image, so that all go together. On a CPU that one image keeps busy, a batch
    of four takes nearly four times as long, and its first image would wait for its last: there images go one by one, until
    so many wait that the little which a batch saves counts.

    Args:
        max_batch: images in a full batch.
        latency: of the engine, as the warm-up found it.
        always: images go together whatever it saves, as somebody has asked for it.
    """

    def __init__(self, max_batch: int, latency: LatencyModel, *, always: bool) -> None:
        gain = latency.gain(max_batch)
        self._max_batch = max_batch
        self.one_by_one_below = 0 if always or gain >= _MUCH else _QUEUE_OF * max_batch
        """Images that wait, from which on they go together."""
        words = (
            f"they go one by one until {self.one_by_one_below} wait"
            if self.one_by_one_below
            else "those that wait go together"
        )
        logger.info("a batch of %d saves %.1f %% of its images' time: %s", max_batch, 100 * gain, words)

    def size(self, num_waiting: int) -> int:
        """Images that the next batch is to have while `num_waiting` have come and have not been run; it may have fewer."""
        return self._max_batch if num_waiting >= self.one_by_one_below else 1
