"""A clock that can stand still: for what is stopped while others have their turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_LOOK_S: Final = 0.005
"""How often whoever waits looks whether a clock goes on."""


class Clock:
    """Seconds since it was made, without those in which it stood."""

    def __init__(self, *, goes: bool = True) -> None:
        self._state = 0.0, time.perf_counter() if goes else None  # in one, as another thread reads it

    def now(self) -> float:
        """Its time."""
        gone, since = self._state
        return gone if since is None else gone + time.perf_counter() - since

    @contextmanager
    def going(self) -> Iterator[None]:
        """Lets one that stands go on while the block runs."""
        self._state = self.now(), time.perf_counter()
        try:
            yield
        finally:
            self._state = self.now(), None

    async def until(self, at: float) -> None:
        """Returns when it is so late."""
        while (left_s := at - self.now()) > 0:
            _, since = self._state
            await asyncio.sleep(_LOOK_S if since is None else left_s)
