"""uvicorn's HTTP protocol with a patience that ends: by itself it waits for ever for the rest of a half-sent request."""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MAX_HEADER_BYTES: Final = 65_536
_LAST_CALL_S: Final = 0.5


class Patience:
    """How long we wait for a client, and for how many: shared by the connections of one server.

    Args:
        receive_timeout_s: for the headers of a request to arrive, again for its body, and for an answer to be taken.
        max_connections: over that, the connection that has kept us waiting longest is closed.
    """

    def __init__(self, receive_timeout_s: float, max_connections: int) -> None:
        self.receive_timeout_s, self.max_connections = receive_timeout_s, max_connections
        self.receiving: OrderedDict[PatientProtocol, None] = OrderedDict()
        """Connections that owe us a request or the rest of one, the longest first."""


class PatientProtocol(HttpToolsProtocol):
    """Closes connections whose clients are slower than `patience` allows, or whose headers exceed 64 KiB."""

    def __init__(self, *arguments: Any, patience: Patience, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._patience = patience
        self._deadline: asyncio.TimerHandle | None = None
        self._num_header_bytes = 0
        self._has_headers = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * self._patience.receive_timeout_s))
        self._wait_for_rest()
        if len(self.connections) > self._patience.max_connections:
            next(iter(self._patience.receiving)).transport.abort()

    def data_received(self, data: bytes) -> None:
        if not self._has_headers:
            self._num_header_bytes += len(data)
        super().data_received(data)
        if not self._has_headers and self._num_header_bytes > _MAX_HEADER_BYTES:
            self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._has_headers = False
        self._wait_for_rest()

    def on_headers_complete(self) -> None:
        self._has_headers, self._num_header_bytes = True, 0
        self._wait_for_rest()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._stop_waiting()
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """At the end: a request that is on its way is waited for, as long as any; one that may be, for a moment."""
        if self not in self._patience.receiving:
            super().shutdown()
        elif not self._num_header_bytes and not self._has_headers:
            self.loop.call_later(_LAST_CALL_S, super().shutdown)

    def _wait_for_rest(self) -> None:
        self._stop_waiting()
        self._patience.receiving[self] = None
        self._deadline = self.loop.call_later(self._patience.receive_timeout_s, self.transport.abort)

    def _stop_waiting(self) -> None:
        self._patience.receiving.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
