"""uvicorn's HTTP protocol with a patience that ends: by itself it waits for ever for the rest of a half-sent request.

What is no HTTP is answered as every other error is.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from rankone.service.lingering import MOMENT_S, LingeringTransport
from rankone.service.parser import RequestParser
from rankone.service.patience import Patience, Waits
from rankone.service.routes.problems import Problem, problem_response

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

_MAX_HEADER_BYTES: Final = 65_536
_MOST_UNSENT_BYTES: Final = 262_144
"""Of an answer in the kernel, beside what is on its way; by default that is megabytes."""
_TCP_NOTSENT_LOWAT: Final = 25
"""Linux's, which `socket` names from Python 3.12 on."""
_NOT_HTTP: Final = "this is not HTTP/1.1: the first line, a header or the framing of the body cannot be read"
_LONG_HEADERS: Final = (
    f"the headers, trailers or chunk extensions of the request are longer than {_MAX_HEADER_BYTES:,} bytes"
)


class PatientProtocol(HttpToolsProtocol):
    """Closes connections whose clients are slower than `patience` allows, and answers what it cannot read with a problem.

    After such an answer nothing more is read as a request: nobody knows where the next one begins.
    """

    transport: LingeringTransport  # type: ignore[assignment]

    def __init__(self, *arguments: Any, patience: Patience, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.parser = RequestParser(self)  # type: ignore[assignment]
        self._patience = patience
        self._untaken_deadline: asyncio.TimerHandle | None = None
        self._num_header_bytes = 0
        self._is_in_headers = True
        self._has_begun = self._is_told_to_end = False
        self._is_taken = True
        self._among: Waits | None = None
        self._num_unanswered = 0
        self._refusal: Problem | None = None
        self._running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(LingeringTransport(transport, self._patience, self.loop))  # type: ignore[arg-type]
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            # the first for clients that are gone without a word; the second as we cannot tell who takes what the kernel keeps
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * self._patience.timeout_s))
            raw.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _MOST_UNSENT_BYTES)
        self._wait(self._patience.receiving)
        if len(self.connections) > self._patience.max_connections:
            self._patience.make_room(self.transport)

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None or self.transport.is_closing():
            self.transport.hear()
            return
        self._num_header_bytes += len(data)
        super().data_received(data)
        if self._refusal is None and self._num_header_bytes > _MAX_HEADER_BYTES:
            self._refuse(Problem(431, _LONG_HEADERS))

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's, which says nothing more
        self._refuse(Problem(400, _NOT_HTTP))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._has_begun = True
        self._wait(self._patience.receiving)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_headers:  # a trailer is none: what it says comes after all decisions
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._is_in_headers, self._num_header_bytes = False, 0
        self._wait(self._patience.receiving)

    def on_body(self, body: bytes) -> None:
        self._num_header_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_in_headers, self._has_begun, self._num_header_bytes = True, False, 0
        if self.cycle.response_complete:  # it was refused on its headers
            self._wait(self._patience.idle)
            if self._is_told_to_end:  # with what has come in the same breath still to be read
                self.loop.call_soon(self.shutdown_if_silent)
        else:
            self._num_unanswered += 1
            self._wait(None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        is_early = self._has_begun and self.cycle.response_complete and self.cycle.more_body
        self._num_unanswered -= not is_early
        super().on_response_complete()
        if not is_early and not self._num_unanswered:
            self._wait(self._patience.receiving if self._has_begun else self._patience.idle)
        if self._refusal is not None and not self._num_unanswered:
            self._send(self._refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        self.resume_writing()
        self._patience.forget(self.transport)
        if self._running is not None:  # uvicorn tells the request that came last, which may not have begun
            self._running.disconnected = True
            self._running.message_event.set()
        parser = self.parser
        super().connection_lost(exc)
        parser.close()  # type: ignore[attr-defined]

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_untaken(self.transport.num_untaken())
        self._is_taken = False
        self._wait(self._among)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._untaken_deadline is not None:
            self._untaken_deadline.cancel()
            self._untaken_deadline = None
        self._is_taken = True
        self._wait(self._among)

    def shutdown(self) -> None:
        """At the end: a request that is on its way is waited for, as long as any; one that may be, for a moment."""
        self._is_told_to_end = True
        if self.transport in self._patience.receiving and not self._has_begun:
            self.loop.call_later(MOMENT_S, self.shutdown_if_silent)
        elif not self._has_begun:
            super().shutdown()

    def shutdown_if_silent(self) -> None:
        """Closes a connection on which nothing has been sent since."""
        if not self._has_begun:
            super().shutdown()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _refuse(self, refusal: Problem) -> None:
        """Answers `refusal` after the requests that came before it."""
        self._refusal = refusal
        if not self._num_unanswered:
            self._send(refusal)

    def _send(self, refusal: Problem) -> None:
        """Ends the connection with an answer, and does not listen for longer than a moment."""
        is_answered = False
        if not self._is_in_headers:  # it was handed to the app, which waits for the rest of its body
            is_answered = self.cycle.response_started
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._patience.forget(self.transport)
        if self.transport.is_closing():
            return
        if not is_answered:
            self.transport.write(_closing(refusal, self.server_state.default_headers))
        self.transport.close()
        self.loop.call_later(MOMENT_S, self.transport.abort)

    def _wait(self, among: Waits | None) -> None:
        """For what is among those, or for nothing; before that, for the last answer to be taken.

        While an answer is owed it is the client who waits, whatever it has sent of its next request.
        """
        self._among = among
        if self.transport.is_closing():
            return
        self._patience.forget(self.transport)
        if not self._is_taken:
            self._patience.taking[self.transport] = None
        elif among is not None and not self._num_unanswered:
            among.begin(self.transport)

    def _watch_untaken(self, num_bytes: int) -> None:
        """Ends the connection if of so many bytes too few have been taken when the time is over."""

        def look() -> None:
            left = self.transport.num_untaken()
            if num_bytes - left < self._patience.slowest_bytes:
                self.transport.abort()
            else:
                self._watch_untaken(left)

        self._untaken_deadline = self.loop.call_later(self._patience.timeout_s, look)


def _closing(refusal: Problem, headers: list[tuple[bytes, bytes]]) -> bytes:
    """The problem as the last answer of a connection."""
    response = problem_response(refusal, "")
    lines = [*headers, *response.raw_headers, (b"connection", b"close")]
    return b"".join([STATUS_LINE[refusal.status], *(b"%b: %b\r\n" % line for line in lines), b"\r\n", response.body])
