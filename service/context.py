"""What is known of the request in work, wherever in it one is: its id, its deadline, where its time went."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.types import Receive


class ClientGone(Exception):
    """The client has hung up; nobody reads an answer."""


@dataclass(eq=False)
class RequestContext:
    """One HTTP request, from its headers to its answer."""

    id: str
    deadline: float
    """By `time.perf_counter`."""
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    """By name in lower case; of one that was sent twice, the last."""
    parts: dict[str, float] = field(default_factory=dict)
    """Seconds by name, in order, for Server-Timing, traces and the log."""
    num_images: int = 0
    route: str = "unmatched"
    """Its template, as far as it is known before the routes are looked through."""
    key_name: str | None = None
    receive: Receive | None = None
    """Once its body has been read, where its disconnection is heard."""

    @property
    def left_s(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self.deadline - time.perf_counter())

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Adds the seconds of the block to `part`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.parts[part] = self.parts.get(part, 0.0) + time.perf_counter() - started

    async def on_departure(self, call: Callable[[], Any]) -> None:
        """Calls when the client hangs up, which is heard once the body of its request has been read."""
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
