"""How many images may be in work, counted from before they are decoded until they are answered."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rankone.service.errors import Problem

_SAFETY: Final = 0.85
"""The part of a request's time in which it must be expected to be answered. Speed varies, and a request that misses its
deadline has used time that others needed."""


class QueueFull(Problem):
    """The service is too busy for this request; `retry_after_s` says when to try again."""

    def __init__(self, reason: str, wait_s: float) -> None:
        retry_after_s = max(1, math.ceil(wait_s))
        super().__init__(429, f"{reason}; try again in {retry_after_s} s", retry_after_s=retry_after_s)


class Admission:
    """Admits images while there are at most `max_images` and they can be answered in time.

    Args:
        max_images: in work at once.
        images_per_s: measures how many images the service can answer in a second.
    """

    def __init__(self, max_images: int, images_per_s: Callable[[], float]) -> None:
        self._max_images, self._images_per_s = max_images, images_per_s
        self._requests: Counter[int] = Counter()
        """Requests in work, by their number of images."""
        self.num_images = 0

    def check(self, num_images: int, time_left_s: float) -> None:
        """Checks whether a request of `num_images` can be answered within `time_left_s`.

        Raises:
            QueueFull: it cannot.
        """
        per_s = self._images_per_s()
        if self.num_images + num_images > self._max_images:
            raise QueueFull(
                f"{self.num_images} images are in work, and {num_images} more would exceed the limit of {self._max_images}",
                self.num_images / per_s,
            )
        num_ahead, limit_s = self._num_ahead(num_images), _SAFETY * time_left_s
        wait_s = (num_ahead + num_images) / per_s
        if num_ahead and wait_s > limit_s:  # an idle service cannot do better later
            raise QueueFull(
                f"the answer would take {wait_s:.1f} s, too long for this request's timeout", wait_s - limit_s
            )

    @contextmanager
    def reserve(self, num_images: int, time_left_s: float) -> Iterator[None]:
        """Counts these images while the block runs.

        Raises:
            QueueFull: see `check`; nothing was counted.
        """
        self.check(num_images, time_left_s)
        self._requests[num_images] += 1
        self.num_images += num_images
        try:
            yield
        finally:
            self.num_images -= num_images
            self._requests[num_images] -= 1

    def _num_ahead(self, num_images: int) -> int:
        """Images that run before the last of a new request of `num_images`, as requests take turns."""
        return sum(count * min(size, num_images) for size, count in self._requests.items())
