"""Bodies that are sent compressed: gzip is decoded as it comes, within the limits of the body; nothing else is accepted."""

from __future__ import annotations

import zlib
from typing import Final

import anyio.to_thread
from starlette.types import Message, Receive, Scope

from rankone.service.errors import Problem

_GZIP: Final = ("gzip", "x-gzip")
_WINDOW: Final = 16 + zlib.MAX_WBITS
"""zlib's way to say: with the header of gzip."""
_PIECE: Final = 1 << 20
"""Bytes that are decoded at once: what a bomb can take before it is counted."""


def is_gzip(scope: Scope) -> bool:
    """Whether the body is sent as gzip.

    Raises:
        Problem: 415, it is encoded otherwise, or more than once.
    """
    sent = b", ".join(value for name, value in scope["headers"] if name == b"content-encoding").decode("latin-1")
    encoding = sent.strip().lower()
    if encoding in ("", "identity"):
        return False
    if encoding in _GZIP:
        return True
    raise Problem(415, f"content encoding {encoding!r} is not accepted; send the body as it is, or as gzip")


class Gunzip:
    """Receives the decoded body in parts of at most a megabyte, decoded off the event loop.

    Raises:
        Problem: 400 the body is not gzip or ends too early, 413 it is longer than `max_bytes` as it is sent.
    """

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive, self._max_bytes = receive, max_bytes
        self._decoder = zlib.decompressobj(_WINDOW)
        self._num_read, self._pending = 0, b""
        self._has_more, self._is_done = True, False

    async def __call__(self) -> Message:
        while not self._is_done:
            if self._pending:
                if part := await anyio.to_thread.run_sync(self._decode):
                    return {"type": "http.request", "body": part, "more_body": True}
            elif self._has_more:
                message = await self._receive()
                if message["type"] != "http.request":
                    return message
                self._pending, self._has_more = message.get("body", b""), message.get("more_body", False)
                self._num_read += len(self._pending)
                if self._num_read > self._max_bytes:
                    raise Problem(413, f"the request's body is longer than {self._max_bytes:,} bytes")
            else:
                self._is_done = True
                if self._num_read and not self._decoder.eof:
                    raise Problem(400, "the body is not whole: its gzip ends too early")
                return {"type": "http.request", "body": b"", "more_body": False}
        return await self._receive()

    def _decode(self) -> bytes:
        if self._decoder.eof:  # gzip is one member or several
            self._decoder = zlib.decompressobj(_WINDOW)
        try:
            part = self._decoder.decompress(self._pending, _PIECE)
        except zlib.error as error:
            raise Problem(400, f"the body is not gzip, as its content encoding says: {error}") from error
        self._pending = self._decoder.unused_data if self._decoder.eof else self._decoder.unconsumed_tail
        return part
