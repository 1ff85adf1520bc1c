"""When a request is sent again, and how long is waited before."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import Final

import httpx


class Failure(Enum):
    """What may pass by itself."""

    BUSY = auto()
    """The service refused before it did anything: 429."""
    UNAVAILABLE = auto()
    """503. Most often nothing was done; but a proxy whose connection broke says so too, as does a service that comes to its
    end or whose disk fails, with the request on its way."""
    UNREACHED = auto()
    """No connection: nothing was sent."""
    LOST = auto()
    """The connection broke with the request on its way: it may have been carried out."""


IDEMPOTENT: Final = frozenset(Failure)
"""For requests that do no harm when they are carried out twice."""
ONCE: Final = frozenset({Failure.BUSY, Failure.UNREACHED})
"""For those that do: only where it is certain that nothing was done."""

_STATUSES: Final[dict[int, Failure]] = {
    httpx.codes.TOO_MANY_REQUESTS: Failure.BUSY,
    httpx.codes.SERVICE_UNAVAILABLE: Failure.UNAVAILABLE,
}


def failure_of(outcome: httpx.Response | httpx.RequestError) -> Failure | None:
    """Which failure it is; None for one that will not pass, a deadline that has passed among them."""
    match outcome:
        case httpx.Response():
            return _STATUSES.get(outcome.status_code)
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.PoolTimeout():
            return Failure.UNREACHED
        case httpx.NetworkError() | httpx.RemoteProtocolError():
            return Failure.LOST
    return None


@dataclass(frozen=True)
class Retries:
    """How often and how long a request is tried: `attempts` in all, none begun after `total_s` seconds.

    Waits are what `Retry-After` asks for, plus a random part of a time that starts at `first_s` and doubles up to
    `longest_s`, so that clients that were refused together do not return together. `Retries(attempts=1)` tries once.
    """

    attempts: int = 8
    total_s: float = 120.0
    first_s: float = 0.5
    longest_s: float = 16.0

    def wait_s(self, num_failed: int, elapsed_s: float, asked_s: float = 0.0) -> float | None:
        """Seconds to wait after `num_failed` attempts; None to give up."""
        spread = random.random()  # noqa: S311 - to spread clients, not to keep a secret
        wait = asked_s + spread * min(self.first_s * 2 ** (num_failed - 1), self.longest_s)
        return None if num_failed >= self.attempts or elapsed_s + wait > self.total_s else wait


def asked_s(outcome: httpx.Response | httpx.RequestError) -> float:
    """The seconds that `Retry-After` asks for, as a number or as a date; 0 where it asks for nothing."""
    value = outcome.headers.get("retry-after", "") if isinstance(outcome, httpx.Response) else ""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return 0.0
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0
