"""How a client reaches its service: address, key, timeouts, and retries of failed requests."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx

from rankone.client.errors import Outcome, ServiceError, is_problem
from rankone.client.network import certificates_for, proxy_for

DEFAULT_URL: Final = "http://127.0.0.1:8000"

STARTING: Final = frozenset({0, 429, 500, 502, 503, 504})
"""What a service that is starting answers, itself or through its proxy (Ray Serve's says 500); 0 is no answer."""

TOO_SLOW: Final = 504

_CONNECT_S: Final = 10.0
_GRACE_S: Final = 5.0  # on top of `timeout_s`, to receive the service's answer that the deadline has passed
_READ_S: Final = 300.0  # without `timeout_s`: longer than the slowest route takes

_NOT_CONNECTED: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_DISCONNECTED: Final = (httpx.NetworkError, httpx.RemoteProtocolError)

RetryIf = Callable[[Outcome], bool]


def http_options(url: str | None, key: str | None, timeout_s: float | None, transport: Any = None) -> dict[str, Any]:
    """The arguments of httpx.Client and httpx.AsyncClient; raises ServiceError if the URL, the key or the proxy is invalid.

    Without `timeout_s`, no deadline is sent, because any number could exceed the service's maximum.
    """
    url = url or os.environ.get("RANKONE_URL") or DEFAULT_URL
    key = key or os.environ.get("RANKONE_KEY")
    headers = {} if timeout_s is None else {"x-request-timeout": f"{timeout_s:g}"}
    read_s = _READ_S if timeout_s is None else timeout_s + _GRACE_S
    if key:
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ServiceError(0, "the key has characters that no key has: spaces, line ends or other than ASCII")
        headers["authorization"] = f"Bearer {key}"
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ServiceError(0, f"{url!r} is not a URL: {error}") from error
    if address.scheme not in ("http", "https") or not address.host:
        raise ServiceError(0, f"{url!r} is not the URL of a service: it must begin with http:// or https:// and a host")
    return {
        "base_url": url,
        "headers": headers,
        "timeout": httpx.Timeout(read_s, connect=min(_CONNECT_S, timeout_s or _CONNECT_S)),
        "transport": transport,
        "trust_env": False,
        "proxy": None if transport else proxy_for(address),
        "verify": certificates_for(address),
    }


@dataclass(frozen=True)
class Retries:
    """A request is tried up to `attempts` times; no attempt starts after `total_s` seconds.

    Each wait is the time of `Retry-After` plus a random part of a delay that starts at `first_s` and doubles up to
    `longest_s`, so that clients refused together do not return together. `Retries(attempts=1)` never repeats.
    """

    attempts: int = 8
    total_s: float = 120.0
    first_s: float = 0.5
    longest_s: float = 16.0

    def wait_s(self, num_failed: int, elapsed_s: float, retry_after_s: float = 0.0) -> float | None:
        """Seconds to wait after `num_failed` attempts; None to give up."""
        jitter = random.random()  # noqa: S311 - not for cryptography
        wait = retry_after_s + jitter * min(self.first_s * 2 ** (num_failed - 1), self.longest_s)
        return None if num_failed >= self.attempts or elapsed_s + wait > self.total_s else wait


DEFAULT_RETRIES: Final = Retries()


def is_temporary(outcome: Outcome) -> bool:
    """For requests that may run twice: the service is busy or unavailable, a connection failed, or the answer was lost.

    It was also lost where an error comes from something else than the service, such as a proxy: it is no `problem+json`.
    """
    is_lost = isinstance(outcome, httpx.Response) and outcome.is_error and not is_problem(outcome)
    return is_lost or is_unavailable(outcome) or isinstance(outcome, _NOT_CONNECTED + _DISCONNECTED)


def is_temporary_for(num_inputs: int) -> RetryIf:
    """The same for a request with many inputs, but for 504: half of them may be in time."""
    if num_inputs == 1:
        return is_temporary
    return lambda it: is_temporary(it) and not (isinstance(it, httpx.Response) and it.status_code == TOO_SLOW)


def not_executed(outcome: Outcome) -> bool:
    """For requests that must not run twice: the service is busy, or no connection was made.

    503 is not enough: a proxy also answers it when it loses its connection to the service during a request.
    """
    return isinstance(outcome, _NOT_CONNECTED) or (isinstance(outcome, httpx.Response) and outcome.status_code == 429)


def is_unavailable(outcome: Outcome) -> bool:
    """For a client's first request: the service is busy or unavailable. A wrong address is reported at once.

    A proxy that lost its service answers 500 (Ray Serve's), 502, 503 or 504, and no `problem+json`.
    """
    if not isinstance(outcome, httpx.Response):
        return False
    return outcome.status_code in (429, 503) or (outcome.is_server_error and not is_problem(outcome))


def never(_: Outcome) -> bool:
    """For requests that are not repeated."""
    return False


def retry_after_s(outcome: Outcome) -> float:
    """The seconds in `Retry-After`, which holds a number or a date; 0 without the header."""
    value = outcome.headers.get("retry-after", "") if isinstance(outcome, httpx.Response) else ""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return 0.0
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0
