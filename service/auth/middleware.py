"""What a request's key allows, decided on its headers: none of its body is read before."""

from __future__ import annotations

import math
import re
import time
from collections import OrderedDict
from ipaddress import IPv4Address, ip_address
from typing import Final

from starlette import types as asgi

from rankone.service.auth.keys import KeyRing, KeyScope
from rankone.service.errors import Problem
from rankone.service.observe.context import current
from rankone.service.routes.pages import OPEN

_SEARCHES: Final = re.compile(r"/(embed|classify|search|explain|v1/embeddings|indexes/[^/]+/search)")

_FAILURES_PER_MINUTE: Final = 60
_MAX_BUCKETS: Final = 10_000


def scope_of(method: str, path: str) -> KeyScope | None:
    """The scope that a request needs: None for public routes, `write` unless the route is known to need another."""
    if method in ("GET", "HEAD"):
        return None if path in OPEN else "read"
    if path.startswith("/models/"):
        return "admin"
    return "read" if method == "POST" and _SEARCHES.fullmatch(path) else "write"


class KeysMiddleware:
    """Answers 401 without a valid key, 403 with one of another scope, 429 over its rate.

    An address that sends more than 60 requests a minute without a valid key gets 429 for the others. A valid key is let in
    from there too: a proxy's address is that of all its clients, and any of them, or a page in a browser, could lock out
    the rest. Keys are random and cannot be guessed.
    """

    def __init__(self, app: asgi.ASGIApp, ring: KeyRing) -> None:
        self._app, self._ring = app, ring
        self._keys, self._failures = _Buckets(), _Buckets()

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        needed = scope_of(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if needed is not None:
            self._check(needed, scope, current().headers.get(b"authorization", b""))
        await self._app(scope, receive, send)

    def _check(self, needed: KeyScope, scope: asgi.Scope, authorization: bytes) -> None:
        kind, _, secret = authorization.decode("latin-1").partition(" ")
        if kind.lower() != "bearer" or not secret:
            raise self._without_key(scope, "a key is needed: send it as `Authorization: Bearer <key>`")
        if (key := self._ring.find(secret.strip())) is None:
            raise self._without_key(scope, "this key is not valid here")
        current().key_name = key.name
        if needed not in key.scopes:
            has = ", ".join(sorted(key.scopes))
            raise Problem(403, f"this needs a key of scope {needed!r}; {key.name!r} has {has}")
        per_minute = key.requests_per_minute
        if per_minute is not None and (wait_s := self._keys.take(key.sha256, per_minute)) > 0:
            detail = f"the key {key.name!r} may send {per_minute} requests a minute"
            raise Problem(429, detail, retry_after_s=math.ceil(wait_s))

    def _without_key(self, scope: asgi.Scope, detail: str) -> Problem:
        if (wait_s := self._failures.take(_network_of(scope.get("client")), _FAILURES_PER_MINUTE)) > 0:
            detail = "too many requests without a valid key came from this address"
            return Problem(429, detail, retry_after_s=math.ceil(wait_s))
        return Problem(401, detail, headers={"WWW-Authenticate": "Bearer"})


class _Buckets:
    """Token buckets, each with the requests of a minute; it forgets the one that has been quiet for longest."""

    def __init__(self) -> None:
        self._buckets = OrderedDict[str, tuple[float, float]]()
        """The tokens that were left, and when, by key or address."""

    def take(self, name: str, per_minute: int) -> float:
        """Takes a token and returns 0, or returns the seconds until there is one."""
        now, per_s = time.monotonic(), per_minute / 60
        tokens, filled_at = self._buckets.pop(name, (per_minute, now))
        tokens = min(per_minute, tokens + (now - filled_at) * per_s)
        wait_s = max(0.0, (1 - tokens) / per_s)
        self._buckets[name] = (tokens if wait_s else tokens - 1, now)
        if len(self._buckets) > _MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return wait_s


def _network_of(client: tuple[str, int] | None) -> str:
    """The client's IPv4 address, or the first half of its IPv6 address: a client chooses the second half freely."""
    if client is None:  # over a socket in the file system
        return ""
    try:
        address = ip_address(client[0])
    except ValueError:
        return client[0]
    is_short = isinstance(address, IPv4Address) or address.ipv4_mapped is not None
    return client[0] if is_short else str(int(address) >> 64)
