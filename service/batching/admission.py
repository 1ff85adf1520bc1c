"""Who may come in: images are counted from before they are decoded until they are answered, and there is a most."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from model.errors import RankoneError


class QueueFull(RankoneError, RuntimeError):
    """No room for the images of this request now; `retry_after_s` says when there may be."""

    def __init__(self, num_images: int, num_waiting: int, max_images: int, retry_after_s: int) -> None:
        super().__init__(
            f"{num_waiting} images are waiting and {num_images} more would be over the {max_images} that may; "
            f"try again in {retry_after_s} s"
        )
        self.retry_after_s = retry_after_s


class Admission:
    """Counts images in work, at most `max_images`.

    Args:
        max_images: in work at once.
        images_per_s: what the engine does, for the time after which it is worth trying again.
    """

    def __init__(self, max_images: int, images_per_s: Callable[[], float]) -> None:
        self._max_images, self._images_per_s = max_images, images_per_s
        self.num_images = 0

    @contextmanager
    def reserve(self, num_images: int) -> Iterator[None]:
        """Room for the images of one request while the block runs.

        Raises:
            QueueFull: there is none; nothing was reserved.
        """
        if self.num_images + num_images > self._max_images:
            wait_s = max(1, math.ceil(self.num_images / self._images_per_s()))
            raise QueueFull(num_images, self.num_images, self._max_images, wait_s)
        self.num_images += num_images
        try:
            yield
        finally:
            self.num_images -= num_images
