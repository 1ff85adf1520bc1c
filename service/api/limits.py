"""The length of a request's body, held while it is read: nobody makes us keep more than was agreed."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import Problem, problem_response


class BodyLimitMiddleware:
    """Refuses a body longer than `max_bytes` with 413: by its Content-Length before a byte is read, else as it grows.

    Starlette has such a middleware too, whose answer is plain text and not a problem.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await problem_response(self._too_long())(scope, receive, send)
            return
        num_read = 0

        async def count() -> Message:
            nonlocal num_read
            message = await receive()
            num_read += len(message.get("body", b""))
            if num_read > self._max_bytes:
                raise self._too_long()
            return message

        await self._app(scope, count, send)

    def _too_long(self) -> Problem:
        return Problem(413, f"the request's body is longer than {self._max_bytes:,} bytes")
