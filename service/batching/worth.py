"""How many of the images that wait go into one batch."""

from __future__ import annotations

import logging
from typing import Final

from rankone.service.batching.latency import LatencyModel

logger = logging.getLogger("rankone")

_MUCH: Final = 0.2
"""Part of its images' time that a full batch saves, from which on all that wait go together. With half of them at this line,
p99 is the same at half of the capacity and 5 % more at three quarters, by simulation."""


class Worth:
    """How many of the images that wait the next batch is to have.

    On a GPU a batch takes hardly longer than an image, so that all go together. On a CPU that one image keeps busy, a batch of
    four takes nearly four times as long, and its first image would wait for its last: there it has half of those that wait,
    so that few go one by one, and many have what little a batch saves.

    Args:
        max_batch: images in a full batch.
        latency: of the engine, as the warm-up found it.
        always: images go together whatever it saves, as somebody has asked for it.
    """

    def __init__(self, max_batch: int, latency: LatencyModel, *, always: bool) -> None:
        gain = latency.gain(max_batch)
        self._max_batch = max_batch
        self.takes_all = always or gain >= _MUCH
        """Of those that wait, and not half of them."""
        part = "all" if self.takes_all else "half"
        logger.info(
            "a batch of %d saves %.1f %% of its images' time: it has %s of those that wait", max_batch, 100 * gain, part
        )

    def size(self, num_waiting: int) -> int:
        """Images that the next batch is to have while `num_waiting` have come and have not been run; it may have fewer."""
        return self._max_batch if self.takes_all else max(1, min(self._max_batch, (num_waiting + 1) // 2))
