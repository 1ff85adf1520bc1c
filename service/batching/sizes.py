"""Which sizes batches have."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Which sizes batches have: up to `max_batch`, filled up to the next of `buckets` if there are any."""

    max_batch: int
    buckets: tuple[int, ...] = ()

    def padded(self, num_images: int) -> int:
        """The size of the batch that holds `num_images`."""
        return next((size for size in self.buckets if size >= num_images), num_images)

    def to_warm(self) -> tuple[int, ...]:
        """The sizes to run before the first request, largest first, so that memory is taken once."""
        return tuple(sorted(self.buckets or {1, self.max_batch}, reverse=True))
