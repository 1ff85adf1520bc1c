"""The bodies of requests, held within limits while they are read: nobody makes us keep more than was agreed."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rankone.service.context import current
from rankone.service.routes.problems import Problem, problem_response


class BodyMiddleware:
    """Refuses a body longer than `max_bytes` with 413, by its Content-Length before a byte is read, else as it grows,
    and with 429 when the bodies of all requests in work would come to more than `max_total_bytes`.

    Starlette has a limit too, whose answer is plain text and not a problem.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_total_bytes: int) -> None:
        self._app, self._max_bytes, self._max_total_bytes = app, max_bytes, max_total_bytes
        self._total = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        num_read, context = 0, current()
        declared = context.headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await problem_response(self._too_long(), scope["path"])(scope, receive, send)
            return

        async def count() -> Message:
            nonlocal num_read
            message = await receive()
            added = len(message.get("body", b""))
            num_read, self._total = num_read + added, self._total + added
            if num_read > self._max_bytes:
                raise self._too_long()
            if self._total > self._max_total_bytes:
                raise Problem(429, "the bodies of all requests in work are too long together", retry_after_s=1)
            if not message.get("more_body", False):
                context.receive = receive
            return message

        try:
            await self._app(scope, count, send)
        finally:
            self._total -= num_read

    def _too_long(self) -> Problem:
        return Problem(413, f"the request's body is longer than {self._max_bytes:,} bytes")
