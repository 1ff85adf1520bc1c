"""Refuses requests that web pages send without their reader's knowledge: to a foreign `Host`, or changes from another origin.

A browser sends a page's requests to any address that it can reach, 127.0.0.1 too. A key stops them, as a page has none.
Without keys, two headers tell which request is a page's: browsers set them, and no script can change them.

- `Host` is the name that the page was loaded from. A page whose name was pointed at this address after it was loaded (DNS
  rebinding) is of the same origin as the service, but its name is not the service's.
- `Origin` and `Sec-Fetch-Site` say which page asks. Reading needs CORS, but a form or a simple POST is sent without asking.

The second check is that of Go's `http.CrossOriginProtection`, but either header can refuse.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from rankone.service.errors import Problem, problem_response
from rankone.service.observe.context import current
from rankone.service.settings import Settings

_ONCE: Final = frozenset(
    {b"host", b"authorization", b"content-type", b"origin", b"sec-fetch-site", b"x-request-timeout"}
)
"""Headers of which the service and a proxy before it could each believe another one, were they sent twice."""
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST: Final = re.compile(r"(\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(:[0-9]*)?")
_OUR_SITES: Final = frozenset({b"same-origin", b"none"})
"""Not `same-site`: that is also what a page on another port of this machine sends. `none` is the reader's own doing."""


class OriginsMiddleware:
    """Answers 400 if a header is missing or sent twice and, without keys, 403 to foreign names and foreign pages.

    Pages of the origins in `cors_origins` are not foreign.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._has_keys = app, settings.keys is not None
        self._origins = frozenset(origin.encode() for origin in settings.cors_origins)
        self._names = frozenset(name.lower() for name in (settings.host, *settings.allowed_hosts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (problem := self._refusal(scope)) is not None:
            await problem_response(problem, scope["path"])(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Problem | None:
        for name, count in Counter(name for name, _ in scope["headers"] if name in _ONCE).items():
            if count > 1:
                return Problem(400, f"the header {name.decode().title()} was sent {count} times; send it once")
        headers = current().headers
        if not (host := headers.get(b"host", b"").strip()):
            return Problem(400, "the header Host is missing")
        if self._has_keys:
            return None
        name = name_of(host.decode("latin-1"))
        if not (is_loopback(name) or name in self._names or "*" in self._names):
            return Problem(
                403,
                f"this service has no keys, so it answers only to names of this machine, and not to {name!r}: start it with "
                "keys, or add the name to RANKONE_ALLOWED_HOSTS",
            )
        if scope["method"] not in _SAFE and self._is_foreign(headers, host):
            sender = headers.get(b"origin", b"another site").decode("latin-1")
            return Problem(
                403,
                f"a page of {sender} may not change anything here: this service has no keys. Start it with keys, or add the "
                "page's origin to RANKONE_CORS_ORIGINS",
            )
        return None

    def _is_foreign(self, headers: Mapping[bytes, bytes], host: bytes) -> bool:
        """Whether a page of another origin sends this, by either header; other programs send neither."""
        origin = headers.get(b"origin")
        if origin in self._origins:
            return False
        if origin is not None and origin.lower().partition(b"://")[2] != host.lower():
            return True
        return headers.get(b"sec-fetch-site", b"none") not in _OUR_SITES


def name_of(host: str) -> str:
    """The name or address in a Host header, in lower case and without port and brackets; all of it if it is malformed."""
    found = _HOST.fullmatch(host)
    return host if found is None else (found["address"] or found["name"]).lower()


def is_loopback(name: str) -> bool:
    """Whether this name or address is this machine's own, wherever it is asked."""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
