"""The deadline of a request, set once at the edge: when it passes, or the client hangs up, the work is cancelled.

Code below may be cancelled at any `await`. Only admission and the batcher also look at the clock, to refuse work that would
be late.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rankone.service.bundles import ServiceState
from rankone.service.errors import CLIENT_GONE, DeadlinePassed, Problem, problem_response
from rankone.service.observe.context import current
from rankone.service.settings import Settings

_BUNDLES: Final = "/models/"
"""Loading a bundle takes as long as it takes, and goes on when the client hangs up."""


class DeadlineMiddleware:
    """Cancels a request whose deadline passes (504), whose client hangs up (499) or whose body is late (408).

    The deadline is `X-Request-Timeout` seconds after the headers, or the default. A request that uvicorn cancels at the
    end of the service is answered 503.
    """

    def __init__(self, app: ASGIApp, state: ServiceState, settings: Settings) -> None:
        self._app, self._state, self._settings = app, state, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client = _Client(receive, send, self._state, self._settings.receive_timeout_s)
        try:
            await self._run(scope, client)
            return
        except Problem as caught:
            problem = caught
        except asyncio.CancelledError:
            if client.is_answered or not self._state.is_draining:
                raise
            problem = Problem(503, "the service shut down before it could answer", retry_after_s=1)
        await problem_response(problem, scope["path"])(scope, receive, client.send)

    async def _run(self, scope: Scope, client: _Client) -> None:
        context = current()
        timeout_s = self._timeout_s(context.headers.get(b"x-request-timeout"))
        context.deadline = time.perf_counter() + timeout_s
        has_deadline = not scope["path"].startswith(_BUNDLES)
        try:
            async with asyncio.timeout(timeout_s if has_deadline else None) as timer:
                if has_deadline:
                    is_empty = context.headers.get(b"content-length", b"0") == b"0"
                    has_body = not is_empty or b"transfer-encoding" in context.headers
                    client.cancel_when_gone(timer, has_body)
                await self._app(scope, client.receive, client.send)
        except TimeoutError:
            if not timer.expired():
                raise
            if client.is_gone:
                raise Problem(CLIENT_GONE, "the client hung up") from None
            raise DeadlinePassed(f"no answer within the {timeout_s:g} s that this request allows") from None
        finally:
            client.let_go()

    def _timeout_s(self, header: bytes | None) -> float:
        """The seconds that the request allows.

        Raises:
            Problem: 422, the header makes no sense.
        """
        most = self._settings.max_request_timeout_s
        try:
            timeout_s = self._settings.request_timeout_s if header is None else float(header)
        except ValueError:
            timeout_s = 0
        if not 0 < timeout_s <= most:
            raise Problem(422, f"X-Request-Timeout must be seconds, more than 0 and at most {most:g}")
        return timeout_s


class _Client:
    """The client of one request: what it sends, what it is sent, and whether it is still there."""

    def __init__(self, receive: Receive, send: Send, state: ServiceState, receive_timeout_s: float) -> None:
        self._receive, self._send, self._state = receive, send, state
        self._receive_timeout_s = receive_timeout_s
        self._body_deadline = asyncio.get_running_loop().time() + receive_timeout_s
        self._timer: asyncio.Timeout | None = None
        self._listening: asyncio.Task[None] | None = None
        self._has_received = False
        self.is_gone = self.is_answered = False

    def cancel_when_gone(self, timer: asyncio.Timeout, has_body: bool) -> None:
        """Makes `timer` end at once when the client hangs up, which shows after the last part of its body."""
        self._timer = timer
        if not has_body:
            self._listen()

    async def receive(self) -> Message:
        """For the app: the parts of the body, at least one, then `http.disconnect` when the client hangs up."""
        is_first, self._has_received = not self._has_received, True
        if self._listening is not None:
            if is_first:
                return {"type": "http.request", "body": b"", "more_body": False}
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._body_deadline):
                message = await self._receive()
        except TimeoutError:
            detail = f"the body of the request did not arrive within {self._receive_timeout_s:g} s"
            raise Problem(408, detail, headers={"Connection": "close"}) from None  # the rest of it may still come
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._listen()
        return message

    async def send(self, message: Message) -> None:
        """For the app: an answer, which is not cancelled once it has begun. It closes the connection while draining."""
        if message["type"] == "http.response.start":
            self.is_answered = True
            if self._timer is not None and not self._timer.expired():
                self._timer.reschedule(None)
            self.let_go()
            if self._state.is_draining:
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
        await self._send(message)

    def let_go(self) -> None:
        """Stops watching whether the client hangs up."""
        self._timer = None
        if self._listening is not None:
            self._listening.cancel()

    def _listen(self) -> None:
        if self._timer is not None:
            self._listening = asyncio.create_task(self._wait_until_gone(self._timer))

    async def _wait_until_gone(self, timer: asyncio.Timeout) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not timer.expired():
            self.is_gone = True
            timer.reschedule(asyncio.get_running_loop().time())
