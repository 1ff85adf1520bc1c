"""Parses multipart forms. A part is a file by `filename`, `filename*` or the type of an image."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import Request
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser

from rankone.service.errors import Problem

_MAX_PARTS: Final = 10_000
_MAX_FIELD: Final = 1 << 24


@asynccontextmanager
async def parts_of(request: Request) -> AsyncIterator[FormData]:
    """The parts of a form, until the block ends. Raises Problem 400 if it cannot be read."""
    limits = {"max_files": _MAX_PARTS, "max_fields": _MAX_PARTS, "max_part_size": _MAX_FIELD}
    try:
        form = await _Parser(request.headers, request.stream(), **limits).parse()
    except MultiPartException as error:
        raise Problem(400, error.message) from error
    try:
        yield form
    finally:
        await form.close()


class _Parser(MultiPartParser):
    """Takes a part with `filename*=` (RFC 5987) or with the type of an image for a file, too.

    RFC 7578 wants `filename`, but older HTTP libraries send a name that is not ASCII as `filename*=` alone.
    """

    def on_headers_finished(self) -> None:
        part = self._current_part
        disposition = (part.content_disposition or b"").lower()
        types = [value.lower() for name, value in part.item_headers if name == b"content-type"]
        is_file = b"filename*=" in disposition or any(
            kind.startswith((b"image/", b"application/oct")) for kind in types
        )
        if is_file and b"filename=" not in disposition:
            part.content_disposition = (part.content_disposition or b"") + b'; filename="file"'
        super().on_headers_finished()
