"""What is known of the request in work, wherever in it one is: its id, its deadline, where its time went."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.types import Receive

_MOMENT_S: Final = 0.1


class ClientGone(Exception):
    """The client has hung up; nobody reads an answer."""


@dataclass(eq=False)
class RequestContext:
    """One HTTP request, from its headers to its answer."""

    id: str
    deadline: float
    """By `time.perf_counter`."""
    parts: dict[str, float] = field(default_factory=dict)
    """Seconds by name, in order, for Server-Timing, traces and the log."""
    num_images: int = 0
    route: str = "unmatched"
    """Its template, as far as it is known before the routes are looked through."""
    key_name: str | None = None
    traceparent: str | None = None
    """The caller's header of that name (W3C Trace Context), as it was sent."""
    receive: Receive | None = None
    """Once its body has been read, where its disconnection is heard."""

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Adds the seconds of the block to `part`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.parts[part] = self.parts.get(part, 0.0) + time.perf_counter() - started

    @contextmanager
    def on_departure(self, call: Callable[[], Any]) -> Iterator[None]:
        """Within, calls if the client hangs up, but not before a moment has passed: what is answered by then needs no watch."""
        watches: list[asyncio.Task[None]] = []
        timer = asyncio.get_running_loop().call_later(
            _MOMENT_S, lambda: watches.append(asyncio.create_task(self._watch(call)))
        )
        try:
            yield
        finally:
            timer.cancel()
            for watch in watches:
                watch.cancel()

    async def _watch(self, call: Callable[[], Any]) -> None:
        while self.receive is not None:
            if (await self.receive())["type"] == "http.disconnect":
                call()
                return


_CURRENT: Final[ContextVar[RequestContext]] = ContextVar("request")


def current() -> RequestContext:
    """The context of the request in work."""
    return _CURRENT.get()


def enter(context: RequestContext) -> None:
    """Makes `context` that of the current task."""
    _CURRENT.set(context)
