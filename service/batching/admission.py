"""Who may come in: images are counted from before they are decoded until they are answered, and there is a most."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rankone.service.errors import Problem

_SURE: Final = 0.85
"""Part of the time that a request allows in which it should be answered. A machine does not keep its speed, and what is
dropped at its deadline has kept others from being in time."""


class QueueFull(Problem):
    """No room for the images of this request now; `retry_after_s` says when there may be."""

    def __init__(self, reason: str, wait_s: float) -> None:
        retry_after_s = max(1, math.ceil(wait_s))
        super().__init__(429, f"{reason}; try again in {retry_after_s} s", retry_after_s=retry_after_s)


class Admission:
    """Counts images in work, at most `max_images`, and no more than can be answered in time.

    Args:
        max_images: in work at once.
        images_per_s: what the engine does.
    """

    def __init__(self, max_images: int, images_per_s: Callable[[], float]) -> None:
        self._max_images, self._images_per_s = max_images, images_per_s
        self._requests: Counter[int] = Counter()
        self.num_images = 0

    def check(self, num_images: int, time_left_s: float) -> None:
        """Looks for room for the images of one request, to be answered within `time_left_s`.

        Raises:
            QueueFull: there is none.
        """
        per_s = self._images_per_s()
        if self.num_images + num_images > self._max_images:
            raise QueueFull(
                f"{self.num_images} images are waiting and {num_images} more would be over the {self._max_images} that may",
                self.num_images / per_s,
            )
        num_ahead, most_s = self._num_ahead(num_images), _SURE * time_left_s
        wait_s = (num_ahead + num_images) / per_s
        if num_ahead and wait_s > most_s:  # where nothing waits, to come back later is of no use
            raise QueueFull(
                f"with what waits it takes {wait_s:.1f} s, too much for what this request allows", wait_s - most_s
            )

    @contextmanager
    def reserve(self, num_images: int, time_left_s: float) -> Iterator[None]:
        """Keeps that room while the block runs.

        Raises:
            QueueFull: there is none; nothing was reserved.
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
        """Images that will be run before the last of a new request of `num_images`, as requests take turns."""
        return sum(count * min(size, num_images) for size, count in self._requests.items())
