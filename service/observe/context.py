"""The context of the current request, wherever in the service it is needed: its id, its deadline, where its time went."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final


@dataclass(eq=False)
class RequestContext:
    """One HTTP request, from its headers to its answer."""

    id: str
    deadline: float = math.inf
    """By `time.perf_counter`."""
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    """By name in lower case; the last one where a header was sent twice."""
    parts: dict[str, float] = field(default_factory=dict)
    """Seconds by name, in order, for Server-Timing, traces and the log."""
    num_images: int = 0
    route: str = "unmatched"
    """The template of its route, where the request is refused before it is routed."""
    key_name: str | None = None

    @property
    def left_s(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self.deadline - time.perf_counter())


_CURRENT: Final[ContextVar[RequestContext]] = ContextVar("request")


def current() -> RequestContext:
    """The context of the current request."""
    return _CURRENT.get()


def enter(context: RequestContext) -> None:
    """Makes `context` that of the current task."""
    _CURRENT.set(context)
