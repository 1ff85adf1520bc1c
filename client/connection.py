"""How a client reaches its service: address, key and deadline."""

from __future__ import annotations

import os
from typing import Any, Final

import httpx

from rankone.client.errors import ServiceError

DEFAULT_URL: Final = "http://127.0.0.1:8000"
KEY_VARIABLE: Final = "RANKONE_KEY"

_CONNECT_S: Final = 10.0
_GRACE_S: Final = 5.0
"""The service ends a request at its deadline and says so; that answer is waited for."""
_SILENCE_S: Final = 300.0
"""Without a word, where the service's own deadline holds, which is a minute unless it is told otherwise; what has none takes
minutes at the most."""


def http_options(url: str, key: str | None, timeout_s: float | None) -> dict[str, Any]:
    """What either of httpx's clients is made with.

    Without `timeout_s` nothing is asked of the service's deadline: any number might be more than it allows.

    Raises:
        ServiceError: no URL, or a key that no header can hold.
    """
    key = key or os.environ.get(KEY_VARIABLE)
    headers = {} if timeout_s is None else {"x-request-timeout": f"{timeout_s:g}"}
    silence_s = _SILENCE_S if timeout_s is None else timeout_s + _GRACE_S
    if key:
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ServiceError(0, "the key has characters that no key has: spaces, line ends or other than ASCII")
        headers["authorization"] = f"Bearer {key}"
    try:
        host = httpx.URL(url).host
    except httpx.InvalidURL as error:
        raise ServiceError(0, f"{url!r} is not a URL: {error}") from error
    return {
        "base_url": url,
        "headers": headers,
        "timeout": httpx.Timeout(silence_s, connect=min(_CONNECT_S, timeout_s or _CONNECT_S)),
        # A proxy of the environment cannot reach this machine's own addresses.
        "trust_env": host not in ("127.0.0.1", "localhost", "::1"),
    }
