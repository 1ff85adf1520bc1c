"""httptools' parser without upgrades: a client that offers one, such as h2c, is answered in HTTP/1.1 (RFC 9110, 7.8).

By itself it takes such a request to end with its headers, and its body for the next request.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

import httptools

_OF_THE_OFFER: Final = frozenset({b"connection", b"upgrade", b"http2-settings"})
_CONNECT: Final = b"CONNECT"


class Handler(Protocol):
    """What is told of requests: uvicorn's protocol."""

    url: bytes
    headers: list[tuple[bytes, bytes]]

    def on_message_begin(self) -> None: ...
    def on_url(self, url: bytes) -> None: ...
    def on_header(self, name: bytes, value: bytes) -> None: ...
    def on_headers_complete(self) -> None: ...
    def on_body(self, body: bytes) -> None: ...
    def on_message_complete(self) -> None: ...


class RequestParser:
    """In place of `httptools.HttpRequestParser`, as far as uvicorn uses it.

    A request that offers an upgrade is read again without the offer, before its handler learns that the headers are complete.
    After CONNECT, behind which there may be anything, nothing is read any more.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.on_message_begin, self.on_url, self.on_header = handler.on_message_begin, handler.on_url, handler.on_header
        self.on_body = handler.on_body
        self._is_over = False
        self._begin()

    def feed_data(self, data: bytes) -> None:
        """Reads on.

        Raises:
            HttpParserError: it is no HTTP/1.1.
        """
        while data and not self._is_over:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                if self.get_method() == _CONNECT:
                    self._is_over = True
                else:
                    data = b"".join(self._head()) + data[offer.args[0] :]
                    self._begin()

    def close(self) -> None:
        """Reads nothing any more. It and the library's parser hold each other, and with them the handler."""
        self._is_over = True
        del self._parser

    def get_method(self) -> bytes:
        """Of the request that is being read."""
        return self._parser.get_method()

    def get_http_version(self) -> str:
        """Of the request that is being read, such as "1.1"."""
        return self._parser.get_http_version()

    def should_keep_alive(self) -> bool:
        """Whether another request may follow on the connection."""
        return self.get_method() != _CONNECT and self._parser.should_keep_alive()

    def should_upgrade(self) -> bool:
        """Never."""
        return False

    def on_headers_complete(self) -> None:
        """To the parser: told on, if there is no offer."""
        if not self._is_offer():
            self._handler.on_headers_complete()

    def on_message_complete(self) -> None:
        """To the parser: told on, if there is no offer."""
        if not self._is_offer():
            self._handler.on_message_complete()

    def _begin(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._parser.set_dangerous_leniencies(
            lenient_data_after_close=True
        )  # as uvicorn has it, for pipelined requests

    def _is_offer(self) -> bool:
        return self._parser.should_upgrade() and self.get_method() != _CONNECT

    def _head(self) -> Iterator[bytes]:
        """The request as far as it has been read, without the offer."""
        yield b"%b %b HTTP/%b\r\n" % (self.get_method(), self._handler.url, self.get_http_version().encode())
        for name, value in self._handler.headers:
            if name not in _OF_THE_OFFER:
                yield b"%b: %b\r\n" % (name, value)
            elif name == b"connection" and b"close" in value.lower():
                yield b"connection: close\r\n"
        yield b"\r\n"
