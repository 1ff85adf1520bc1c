"""Limits request bodies: by their headers if they say the length, otherwise while the body arrives."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rankone.service.bundles import ServiceState
from rankone.service.encodings import Gunzip, is_gzip
from rankone.service.errors import Problem, problem_response
from rankone.service.observe.context import current
from rankone.service.runtime import Runtime
from rankone.service.settings import Settings

_IMAGES_ONLY: Final = frozenset({"/embed", "/classify", "/search", "/explain", "/v1/embeddings"})
"""The routes of an index take vectors too, which need no place in the queue."""


class LimitsMiddleware:
    """Refuses bodies that are too long (413), or too long together (429), and images when the queue is full (429).

    Bodies of gzip are decoded, and it is what they decode to that is counted.

    It leases the runtime for the request, as `scope["state"]["runtime"]`, None where no bundle is loaded yet.
    """

    def __init__(self, app: ASGIApp, state: ServiceState, settings: Settings) -> None:
        self._app, self._state = app, state
        self._max_bytes, self._max_total_bytes = settings.max_request_bytes, settings.max_total_bytes
        self._total = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        num_read = 0
        source = receive

        async def count() -> Message:
            nonlocal num_read
            message = await source()
            added = len(message.get("body", b""))
            num_read, self._total = num_read + added, self._total + added
            if num_read > self._max_bytes:
                raise self._too_long()
            if self._total > self._max_total_bytes:
                raise Problem(429, "the bodies of all requests in work are too long together", retry_after_s=1)
            return message

        with self._state.leased() as runtime:
            scope["state"] = {**scope.get("state", {}), "runtime": runtime}
            try:
                self._check_headers(scope, runtime)
                if is_gzip(scope):
                    source = Gunzip(receive, self._max_bytes)
            except Problem as problem:
                response = problem_response(problem, scope["path"])
                if problem.status == 415:
                    response.headers["Accept-Encoding"] = "gzip"
                await response(scope, receive, send)
                return
            try:
                await self._app(scope, count, send)
            finally:
                self._total -= num_read

    def _check_headers(self, scope: Scope, runtime: Runtime | None) -> None:
        if "\n" in scope["path"]:  # Starlette takes `/metrics%0A` for `/metrics`, a proxy that hides it may not
            raise Problem(404, "there is nothing whose path holds a line break (%0A); send it without")
        declared = current().headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            raise self._too_long()
        if runtime is not None and scope["method"] == "POST" and scope["path"] in _IMAGES_ONLY:
            current().route = scope["path"]
            runtime.inference.check_room()

    def _too_long(self) -> Problem:
        return Problem(413, f"the request's body is longer than {self._max_bytes:,} bytes")
