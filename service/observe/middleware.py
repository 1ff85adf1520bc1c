"""The outermost layer: every request gets an id and a context, and is counted, timed, logged and traced."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Iterator
from typing import Final

from opentelemetry.trace import Tracer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rankone.service.errors import Problem, problem_response
from rankone.service.observe.context import RequestContext, enter
from rankone.service.observe.metrics import Metrics
from rankone.service.observe.traces import trace_parts

logger = logging.getLogger("rankone.access")

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})
_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class ObserveMiddleware:
    """Wraps all other middleware, and answers 500 to exceptions that nothing below it caught.

    Args:
        tracer: makes spans of the parts of requests.
        metrics: counts and times requests by the template of their route, so that ids do not become labels.
    """

    def __init__(self, app: ASGIApp, tracer: Tracer, metrics: Metrics) -> None:
        self._app, self._tracer, self._metrics = app, tracer, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, headers = time.perf_counter(), dict(scope["headers"])
        context = RequestContext(_id(headers.get(b"x-request-id")), headers=headers)
        enter(context)
        status: int | None = None

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                seconds = time.perf_counter() - started
                message["headers"] = [*message.get("headers", ()), *_marks(context, seconds)]
                trace_parts(self._tracer, context, seconds)
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception:
            if status is not None:  # part of an answer is out: uvicorn can only close the connection
                raise
            logging.getLogger("rankone").exception("a fault of the service in request %s", context.id)
            problem = Problem(500, "a fault of the service; its log says more")
            await problem_response(problem, scope["path"])(scope, receive, watch)
        finally:
            self._record(scope, context, status or 500, time.perf_counter() - started)

    def _record(self, scope: Scope, context: RequestContext, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", context.route)
        method = scope["method"] if scope["method"] in _METHODS else "other"  # clients must not make up series
        self._metrics.observe_request(method, route, status, seconds, context.parts)
        level = logging.DEBUG if route in _PROBES else logging.INFO
        if logger.isEnabledFor(level):
            details = {"client": _client(scope), **_details(context, route, status, seconds)}
            logger.log(level, "%s %s %d", method, _path(scope), status, extra=details)


def _marks(context: RequestContext, seconds: float) -> Iterator[tuple[bytes, bytes]]:
    parts = {**context.parts, "total": seconds}
    yield b"x-request-id", context.id.encode()
    yield b"server-timing", ", ".join([f"{part};dur={1e3 * value:.3f}" for part, value in parts.items()]).encode()


def _details(context: RequestContext, route: str, status: int, seconds: float) -> dict[str, object]:
    return {
        "request_id": context.id,
        "route": route,
        "status": status,
        "ms": round(1e3 * seconds, 3),
        "images": context.num_images,
        "key": context.key_name,
        "parts_ms": {part: round(1e3 * value, 3) for part, value in context.parts.items()},
    }


def _client(scope: Scope) -> str:
    """The address that the request came from; that of the last proxy, unless the server was told to trust it."""
    return str(scope["client"][0]) if scope.get("client") else "-"


def _path(scope: Scope) -> str:
    """As it was sent: percent-encoded, so that a client cannot write log lines of its own."""
    return str(scope.get("raw_path", b"").decode("latin-1"))


def _id(sent: bytes | None) -> str:
    """The client's own id if it is safe to log, else a new one, which need not be hard to guess."""
    return sent.decode() if sent is not None and _ID.fullmatch(sent) else f"{random.getrandbits(128):032x}"
