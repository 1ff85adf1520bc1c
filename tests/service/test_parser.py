"""The parser by itself; what it makes of requests is in test_malformed.py."""

from __future__ import annotations

import gc
import weakref

from rankone.service.parser import RequestParser


class Handler:
    """Takes note of nothing."""

    url, headers = b"", list[tuple[bytes, bytes]]()

    def on_message_begin(self) -> None: ...
    def on_url(self, url: bytes) -> None: ...
    def on_header(self, name: bytes, value: bytes) -> None: ...
    def on_headers_complete(self) -> None: ...
    def on_body(self, body: bytes) -> None: ...
    def on_message_complete(self) -> None: ...


def test_a_connection_that_has_ended_is_no_garbage_to_be_collected() -> None:
    """Each would keep its headers and bodies until the collector comes."""
    handler = Handler()
    held, parser = weakref.ref(handler), RequestParser(handler)
    parser.feed_data(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    gc.disable()
    try:
        parser.close()
        parser.feed_data(b"nothing is read any more")
        del handler, parser
        assert held() is None
    finally:
        gc.enable()
