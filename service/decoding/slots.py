"""Memory that decode workers write pixels into and the batcher reads: shared, of a fixed size, named by nothing."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.float32]


def mapped(descriptor: int, count: int, shape: tuple[int, ...]) -> Images:
    """The slots behind a file descriptor, (count, *shape) float32: the same memory in every process that maps it."""
    array: Images = np.frombuffer(mmap.mmap(descriptor, 0), np.float32).reshape(count, *shape)
    return array


_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
"""A worker that has been taken over must not be able to take the memory from under the service."""


class Slots:
    """`count` arrays of `shape`, float32, each lent to one image from when it is decoded until its batch is put together.

    Args:
        count: images that may be decoded and waiting at once.
        shape: of one image's pixels, (3, size, size).
        on_release: called when a slot has come back.
    """

    def __init__(self, count: int, shape: tuple[int, ...]) -> None:
        self.shape, self.count = shape, count
        self.descriptor = os.memfd_create("rankone-pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, count * int(np.prod(shape)) * np.dtype(np.float32).itemsize)
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _SEALS)
        self._pixels = mapped(self.descriptor, count, shape)
        self._free = list(range(count))
        self.on_release: Callable[[], None] = lambda: None

    def __getitem__(self, slot: int | None) -> Images:
        """The pixels in a slot that is lent."""
        assert slot is not None
        pixels: Images = self._pixels[slot]
        return pixels

    @property
    def num_free(self) -> int:
        """How many can be lent."""
        return len(self._free)

    def acquire(self) -> int:
        """Lends a slot.

        Raises:
            IndexError: none is free.
        """
        return self._free.pop()

    def release(self, slot: int | None) -> None:
        """Takes a slot back."""
        assert slot is not None
        self._free.append(slot)
        self.on_release()

    def close(self) -> None:
        """Lets go of the descriptor and the memory, which goes when its last user does."""
        del self._pixels
        os.close(self.descriptor)
