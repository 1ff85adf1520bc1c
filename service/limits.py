"""Limits request bodies: by their headers if they say the length, otherwise while the body arrives. Decodes gzip."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from typing import Final

import anyio.to_thread
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rankone.service.bundles import ServiceState
from rankone.service.errors import Problem
from rankone.service.observe.context import current
from rankone.service.runtime import Runtime
from rankone.service.settings import Settings

_IMAGES_ONLY: Final = frozenset({"/embed", "/classify", "/search", "/explain", "/v1/embeddings"})
"""The routes of an index take vectors too, which need no place in the queue."""
_WINDOW: Final = 16 + zlib.MAX_WBITS
"""zlib's way to say: with the header of gzip."""
_PIECE: Final = 1 << 20
"""Bytes that are decoded at once: what a bomb can take before it is counted."""


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

        async def count() -> Message:
            nonlocal num_read
            message = await source()
            added = len(message.get("body", b""))
            num_read, self._total = num_read + added, self._total + added
            check_length(num_read, self._max_bytes)
            if self._total > self._max_total_bytes:
                raise Problem(429, "the bodies of all requests in work are too long together", retry_after_s=1)
            return message

        with self._state.leased() as runtime:
            scope["state"] = {**scope.get("state", {}), "runtime": runtime}
            self._check_headers(scope, runtime)
            source = gunzip(receive, self._max_bytes).__anext__ if is_gzip(scope) else receive
            try:
                await self._app(scope, count, send)
            finally:
                self._total -= num_read

    def _check_headers(self, scope: Scope, runtime: Runtime | None) -> None:
        if "\n" in scope["path"]:  # Starlette takes `/metrics%0A` for `/metrics`, a proxy that hides it may not
            raise Problem(404, "there is nothing whose path holds a line break (%0A); send it without")
        declared = current().headers.get(b"content-length", b"0")
        if declared.isdigit():
            check_length(int(declared), self._max_bytes)
        if runtime is not None and scope["method"] == "POST" and scope["path"] in _IMAGES_ONLY:
            current().route = scope["path"]
            runtime.inference.check_room()


def check_length(num_bytes: int, max_bytes: int) -> None:
    """Refuses a body that is longer than `max_bytes` (413)."""
    if num_bytes > max_bytes:
        raise Problem(413, f"the request's body is longer than {max_bytes:,} bytes")


def is_gzip(scope: Scope) -> bool:
    """Whether the body is sent as gzip.

    Raises:
        Problem: 415, it is encoded otherwise, or more than once.
    """
    sent = b", ".join(value for name, value in scope["headers"] if name == b"content-encoding").decode("latin-1")
    encoding = sent.strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        detail = f"content encoding {encoding!r} is not accepted; send the body as it is, or as gzip"
        raise Problem(415, detail, headers={"Accept-Encoding": "gzip"})
    return encoding.endswith("gzip")


async def gunzip(receive: Receive, max_bytes: int) -> AsyncIterator[Message]:
    """The messages of `receive` with the body decoded off the event loop, in parts of at most a megabyte.

    Raises:
        Problem: 400 the body is not gzip or ends too early, 413 it is longer than `max_bytes` as it is sent.
    """
    decoder, num_read, has_more = zlib.decompressobj(_WINDOW), 0, True
    while has_more:
        message = await receive()
        pending, has_more = message.get("body", b""), message.get("more_body", False)
        num_read += len(pending)
        check_length(num_read, max_bytes)
        while pending:
            if decoder.eof:  # gzip is one member or several
                decoder = zlib.decompressobj(_WINDOW)
            try:
                part = await anyio.to_thread.run_sync(decoder.decompress, pending, _PIECE)
            except zlib.error as error:
                raise Problem(400, f"the body is not gzip, as its content encoding says: {error}") from error
            pending = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
            if part:
                yield {"type": "http.request", "body": part, "more_body": True}
        while message["type"] != "http.request":  # the client hung up
            yield message
    if num_read and not decoder.eof:
        raise Problem(400, "the body is not whole: its gzip ends too early")
    yield {"type": "http.request", "body": b"", "more_body": False}
    while True:
        yield await receive()
