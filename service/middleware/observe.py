"""The outermost layer: every request gets an id, a deadline and a model, and is counted, timed, logged and traced."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Iterator
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rankone.service.context import RequestContext, current, enter
from rankone.service.metrics import Metrics
from rankone.service.routes.problems import Problem, problem_response
from rankone.service.state import ServiceState
from rankone.service.traces import Tracer

logger = logging.getLogger("rankone.access")

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})
_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class ObserveMiddleware:
    """Wraps all others.

    Args:
        state: whose model answers the request, also when another one takes its place meanwhile.
        tracer: takes note of every request that has ended.
        metrics: counts and times by the route's template, so that ids do not become labels.
        default_timeout_s, max_timeout_s: of a request without and with `X-Request-Timeout`.
    """

    def __init__(
        self,
        app: ASGIApp,
        state: ServiceState,
        tracer: Tracer,
        metrics: Metrics,
        default_timeout_s: float,
        max_timeout_s: float,
    ) -> None:
        self._app, self._state, self._tracer, self._metrics = app, state, tracer, metrics
        self._default_timeout_s, self._max_timeout_s = default_timeout_s, max_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])
        timeout_s = self._timeout_s(headers.get(b"x-request-timeout"))
        context = RequestContext(_id(headers.get(b"x-request-id")), started + (timeout_s or 0.0), headers)
        enter(context)
        status: int | None = None

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *self._marks(context, started)]
            await send(message)

        try:
            if timeout_s is None:
                problem: Problem | None = self._bad_timeout()
            else:
                problem = await self._answered(scope, receive, watch)
            if problem is not None:
                if status is not None:  # half an answer is out: nothing is left but to break it off
                    raise ConnectionAbortedError(problem.detail)
                await problem_response(problem, scope["path"])(scope, receive, watch)
        finally:
            self._record(scope, context, status or 500, started)

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> Problem | None:
        """Lets the rest of the service answer; returns what there is to say where it did not."""
        try:
            with self._state.leased() as runtime:
                scope["state"] = {**scope.get("state", {}), "runtime": runtime}
                await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not self._state.is_draining:
                raise
            return Problem(503, "the service came to its end before the answer was there", retry_after_s=1)
        except Exception:
            logger.exception("a fault of the service in request %s", current().id)
            return Problem(500, "a fault of the service; its log says more")
        return None

    def _timeout_s(self, header: bytes | None) -> float | None:
        """The seconds that the request allows; None where they make no sense."""
        if header is None:
            return self._default_timeout_s
        try:
            timeout_s = float(header)
        except ValueError:
            return None
        return timeout_s if 0 < timeout_s <= self._max_timeout_s else None

    def _bad_timeout(self) -> Problem:
        return Problem(422, f"X-Request-Timeout must be seconds, more than 0 and at most {self._max_timeout_s:g}")

    def _marks(self, context: RequestContext, started: float) -> Iterator[tuple[bytes, bytes]]:
        total = {**context.parts, "total": time.perf_counter() - started}
        timing = ", ".join([f"{part};dur={1e3 * seconds:.3f}" for part, seconds in total.items()])
        yield b"x-request-id", context.id.encode()
        yield b"server-timing", timing.encode()
        if self._state.is_draining:
            yield b"connection", b"close"

    def _record(self, scope: Scope, context: RequestContext, status: int, started: float) -> None:
        seconds = time.perf_counter() - started
        route = getattr(scope.get("route"), "path", context.route)
        method = scope["method"] if scope["method"] in _METHODS else "other"  # or clients could make up series
        self._metrics.observe_request(method, route, status, seconds, context.parts)
        self._tracer.record(f"{method} {route}", context, status, seconds)
        level = logging.DEBUG if route in _PROBES else logging.INFO
        if logger.isEnabledFor(level):
            logger.log(level, "%s %s %d", method, _path(scope), status, extra=_details(context, route, status, seconds))


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


def _path(scope: Scope) -> str:
    """As it was sent: percent-encoded, so that nobody writes lines of their own into the log."""
    return str(scope.get("raw_path", b"").decode("latin-1"))


def _id(sent: bytes | None) -> str:
    """The caller's own id where it is one that can be logged, else a new one, which need not be hard to guess."""
    return sent.decode() if sent is not None and _ID.fullmatch(sent) else f"{random.getrandbits(128):032x}"
