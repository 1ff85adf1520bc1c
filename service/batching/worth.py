"""Whether a batch is worth its wait."""

from __future__ import annotations

from typing import Final

from service.batching.latency import LatencyModel

_GAINS_MUCH: Final = 0.1
"""Part of its time that a full batch saves, from which on as many go together as there are: below it, what the first of a
batch lose by waiting for the last is more than what those behind it win, up to three quarters of the capacity."""
_GAINS_LITTLE: Final = 0.02
"""Below it, a full batch saves nothing that could be told from a warm-up."""
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
        waits: for company, whatever it gains, as somebody has set a window.
    """

    def __init__(self, max_batch: int, latency: LatencyModel, *, waits: bool) -> None:
        gain = latency.gain(max_batch)
        self._max_batch, self._always, self._ever = max_batch, waits or gain >= _GAINS_MUCH, gain >= _GAINS_LITTLE

    def size(self, num_waiting: int) -> int:
        """Images that the next batch is to have while `num_waiting` have come and have not been run; it may have fewer."""
        if self._always or (self._ever and num_waiting >= _QUEUE_OF * self._max_batch):
            return self._max_batch
        return 1
