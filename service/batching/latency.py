"""How long a batch will take: a straight line over its size, kept up to date by every batch that ran."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

_WEIGHT: Final = 0.1
_MOST: Final = 4.0


class LatencyModel:
    """Seconds of a batch of n images as `scale * (base + per_image * n)`: base and slope from the warm-up, scale from since.

    Args:
        sizes: batch sizes that were timed.
        seconds: how long each took.
    """

    def __init__(self, sizes: Sequence[int], seconds: Sequence[float]) -> None:
        if len(set(sizes)) > 1:
            slope, base = np.polyfit(sizes, seconds, 1)
        else:
            slope, base = seconds[0] / sizes[0], 0.0
        self._slope, self._base = max(float(slope), 0.0), max(float(base), 0.0)
        self._scale = 1.0

    def predict(self, size: int) -> float:
        """Seconds that a batch of `size` images will take."""
        return self._scale * self._line(size)

    def gain(self, size: int) -> float:
        """Which part of its time a batch of `size` images saves over as many single ones."""
        alone = size * self._line(1)
        return 1 - self._line(size) / alone if alone > 0 else 0.0

    def observe(self, size: int, seconds: float) -> None:
        """A batch of `size` images took `seconds`. One that was held up says little of the next."""
        if (expected := self._line(size)) > 0:
            self._scale += _WEIGHT * (min(seconds / expected, _MOST * self._scale) - self._scale)

    def doubt(self) -> None:
        """Work was dropped on this model's word: where nothing runs any more, nothing else would ever correct it."""
        self._scale += _WEIGHT * (1 - self._scale)

    def _line(self, size: int) -> float:
        return self._base + self._slope * size
