"""How large batches may be, how long they wait, and how long they take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from rankone.model.engine import Engine
from rankone.model.engine.base import Images
from rankone.service.inference.engine_thread import EngineThread

_SMOOTHING: Final = 0.1
_MAX_RATIO: Final = 4.0
"""One batch that was held up counts as four times slower at most."""
_MIN_S: Final = 1e-9
"""Two readings of a coarse clock may be equal."""
_ROUNDS: Final = 3
_WARM_UP_S: Final = 5.0
"""No further round is begun after that."""


@dataclass(frozen=True)
class BatchPolicy:
    """A free engine takes what waits, in turns between requests, up to `max_batch` images.

    Args:
        max_batch: images in a batch.
        padded_sizes: a batch is padded to the next of these sizes; empty where any size runs equally well.
        window_s: how long a free engine waits for a batch to fill, from its first image on.
    """

    max_batch: int
    padded_sizes: tuple[int, ...] = ()
    window_s: float = 0.0

    def padded(self, num_images: int) -> int:
        """The size of the batch that holds `num_images`."""
        return next((size for size in self.padded_sizes if size >= num_images), num_images)

    @property
    def warm_sizes(self) -> tuple[int, ...]:
        """The sizes to run before the first request; the largest first, so that memory is allocated once."""
        return tuple(sorted(self.padded_sizes or {1, self.max_batch}, reverse=True))


class LatencyModel:
    """Predicts the seconds of a batch of n images as `scale * (base + slope * n)`.

    The warm-up gives base and slope; every batch since then adjusts the scale.

    Args:
        sizes: batch sizes that were timed.
        seconds: how long each of them took.
        slowest_s: the longest that any batch of the warm-up took; the longest of `seconds` if not given.
    """

    def __init__(self, sizes: Sequence[int], seconds: Sequence[float], slowest_s: float | None = None) -> None:
        self.slowest_s = max(seconds) if slowest_s is None else slowest_s
        if len(set(sizes)) > 1:
            slope, base = np.polyfit(sizes, seconds, 1)
        else:
            slope, base = seconds[0] / sizes[0], 0.0
        self._slope, self._base = max(float(slope), 0.0), max(float(base), 0.0)
        self._scale = 1.0

    def predict(self, size: int) -> float:
        """Seconds that a batch of `size` images will take."""
        return self._scale * (self._base + self._slope * size)

    def observe(self, size: int, seconds: float) -> None:
        """A batch of `size` images took `seconds`."""
        ratio = min(seconds / max(self.predict(size), _MIN_S), _MAX_RATIO)
        self._scale *= 1 + _SMOOTHING * (ratio - 1)


async def warm_up(engine: Engine, thread: EngineThread, policy: BatchPolicy, shape: tuple[int, ...]) -> LatencyModel:
    """Runs the engine at the sizes that it will see, which allocates memory and chooses kernels, and times it.

    Of some rounds the fastest counts, as other work on the machine can only slow a run down. An image has `shape`,
    (3, size, size).

    Raises:
        EngineError: what the engine raises.
    """
    batches = [np.zeros((size, *shape), np.float32) for size in policy.warm_sizes]
    for pixels in batches:
        await thread.run(engine.run, pixels)
    rounds, started = list[list[float]](), time.perf_counter()
    while not rounds or (len(rounds) < _ROUNDS and time.perf_counter() - started < _WARM_UP_S):
        rounds.append([await _seconds(engine, thread, pixels) for pixels in batches])
    fastest = [min(times) for times in zip(*rounds, strict=True)]
    return LatencyModel(policy.warm_sizes, fastest, slowest_s=max(map(max, rounds)))


async def _seconds(engine: Engine, thread: EngineThread, pixels: Images) -> float:
    started = time.perf_counter()
    await thread.run(engine.run, pixels)
    return max(time.perf_counter() - started, _MIN_S)
