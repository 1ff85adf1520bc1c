"""Who may do what, decided on a request's headers: of its body nothing is read before."""

from __future__ import annotations

import math
import re
import time
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from rankone.service.context import current
from rankone.service.keys import Key, KeyRing
from rankone.service.keys import Scope as KeyScope
from rankone.service.routes import docs
from rankone.service.routes.problems import Problem, problem_response

_OPEN: Final = frozenset({"/healthz", "/readyz", "/openapi.json", "/docs", *(f"/docs/{name}" for name in docs.PARTS)})
_SEARCHES: Final = re.compile(r"/(embed|classify|search|v1/embeddings|indexes/[^/]+/search)")
_ADMINISTERS: Final = "/models/"


def scope_of(method: str, path: str) -> KeyScope | None:
    """The scope that a request needs; None where everybody may ask. What is not known to be harmless needs `write`."""
    if method in ("GET", "HEAD"):
        return None if path in _OPEN else "read"
    if path.startswith(_ADMINISTERS):
        return "admin"
    return "read" if method == "POST" and _SEARCHES.fullmatch(path) else "write"


class KeysMiddleware:
    """Lets through what its key allows: 401 without a valid key, 403 with one of another scope, 429 over its rate."""

    def __init__(self, app: ASGIApp, ring: KeyRing) -> None:
        self._app, self._ring = app, ring
        self._buckets: dict[str, _Bucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        needed = scope_of(scope["method"], scope["path"]) if scope["type"] == "http" else None
        problem = None if needed is None else self._judge(needed, current().headers.get(b"authorization", b""))
        if problem is None:
            await self._app(scope, receive, send)
            return
        response = problem_response(problem, scope["path"])
        if problem.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        await response(scope, receive, send)

    def _judge(self, needed: KeyScope, authorization: bytes) -> Problem | None:
        kind, _, secret = authorization.decode("latin-1").partition(" ")
        if kind.lower() != "bearer" or not secret:
            return Problem(401, "a key is needed: send it as `Authorization: Bearer <key>`")
        if (key := self._ring.find(secret.strip())) is None:
            return Problem(401, "this key is not valid here")
        current().key_name = key.name
        if needed not in key.scopes:
            return Problem(
                403, f"this needs a key of scope {needed!r}; {key.name!r} has {', '.join(sorted(key.scopes))}"
            )
        if key.requests_per_minute is not None and (wait_s := self._wait_s(key, key.requests_per_minute)) > 0:
            return Problem(
                429,
                f"the key {key.name!r} may send {key.requests_per_minute} requests a minute",
                retry_after_s=math.ceil(wait_s),
            )
        return None

    def _wait_s(self, key: Key, requests_per_minute: int) -> float:
        bucket = self._buckets.get(key.sha256)
        if bucket is None or bucket.per_minute != requests_per_minute:
            bucket = self._buckets[key.sha256] = _Bucket(requests_per_minute)
        return bucket.take()


class _Bucket:
    """A token bucket that holds the requests of a minute."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._tokens, self._filled_at = float(per_minute), time.monotonic()

    def take(self) -> float:
        """0 and a token less, or the seconds until there is one."""
        now = time.monotonic()
        per_s = self.per_minute / 60
        self._tokens = min(self.per_minute, self._tokens + (now - self._filled_at) * per_s)
        self._filled_at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0
        return (1 - self._tokens) / per_s
