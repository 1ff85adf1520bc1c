"""Answers: embeddings as numbers, base64 or .npy, and JSON written by orjson, off the event loop if they are large."""

from __future__ import annotations

import base64
import hashlib
import io
import time
from collections.abc import Callable
from typing import Any, Final, Literal

import anyio.to_thread
import numpy as np
import numpy.typing as npt
import orjson
from fastapi import Request, Response
from pydantic import BaseModel

from rankone.model.bundle import Bundle
from rankone.service.errors import Problem
from rankone.service.observe.context import current

JSON: Final = "application/json"
NPY: Final = "application/x-npy"
PNG: Final = "image/png"
_INLINE_BYTES: Final = 200_000
_KEPT: Final = "private, max-age=60"
"""By the browser for a minute, then asked for again by its ETag; what is behind a key is not for shared caches."""

Encoding = Literal["float", "base64"]
Dtype = Literal["float32", "float16"]


class ModelOut(BaseModel):
    """Which network answered."""

    model: str
    version: str
    fingerprint: str


def model_fields(bundle: Bundle) -> dict[str, str]:
    """Which network answered, for every answer it gives."""
    return {"model": bundle.manifest.name, "version": bundle.manifest.version, "fingerprint": bundle.fingerprint}


async def json_response(body: Any, status: int = 200) -> Response:
    """`body`, which may hold NumPy arrays, as JSON."""
    return await written(lambda: to_json(body), JSON, status=status)


async def embeddings_response(
    embeddings: npt.NDArray[np.float32], bundle: Bundle, accept: str, encoding: Encoding, dtype: Dtype
) -> Response:
    """Embeddings (n, dim) in the form that was asked for; `accept` is what `negotiate` returned."""

    def write() -> bytes:
        values = embeddings.astype(f"<{np.dtype(dtype).str[1:]}", copy=False)
        if accept == NPY:
            return _npy(values)
        rows = [base64.b64encode(row).decode() for row in values] if encoding == "base64" else values
        return to_json({**model_fields(bundle), "dim": values.shape[1], "embeddings": rows})

    return await written(write, accept, size=embeddings.nbytes)


async def written(write: Callable[[], bytes], media_type: str, size: int | None = None, status: int = 200) -> Response:
    """What `write` returns, made off the event loop unless its arrays are known to be small (`size`, in bytes)."""
    started = time.perf_counter()
    is_quick = size is not None and size <= _INLINE_BYTES
    body = write() if is_quick else await anyio.to_thread.run_sync(write)
    current().parts["encode"] = time.perf_counter() - started
    return Response(body, status, media_type=media_type)


def cached_response(body: bytes, media_type: str, request: Request, cache_control: str = _KEPT) -> Response:
    """`body`, for a browser to keep; 304 without it if the request's If-None-Match says that it is there already."""
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": cache_control, "X-Content-Type-Options": "nosniff"}
    known = {name.strip().removeprefix("W/") for name in request.headers.get("if-none-match", "").split(",")}
    if known & {tag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)


def to_json(body: Any) -> bytes:
    """`body`, which may hold NumPy arrays, as JSON."""
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def negotiate(request: Request, other: str = NPY) -> str:
    """JSON or `other`, by the Accept header: the one of higher quality, JSON where they are equal.

    The most specific range that matches a type gives its quality (RFC 9110, 12.5.1).

    Raises:
        Problem: 406, neither is accepted.
    """
    ranges = ", ".join(request.headers.getlist("accept")) or "*/*"
    asked: dict[str, float] = {}  # of a range that is sent twice, the higher quality
    for part in ranges.lower().split(","):
        name, *parameters = map(str.strip, part.split(";"))
        asked[name] = max(asked.get(name, 0.0), _quality(parameters))
    qualities = {}
    for kind in (JSON, other):
        names = (kind, f"{kind.partition('/')[0]}/*", "*/*")  # the more specific first
        qualities[kind] = next((asked[name] for name in names if name in asked), 0.0)
    best = max(qualities, key=lambda kind: qualities[kind])
    if qualities[best] == 0:
        raise Problem(406, f"the answer is sent as {JSON} or {other}; the request accepts {ranges}")
    return best


def _quality(parameters: list[str]) -> float:
    """The quality of a range: 1 if none is given; 0 where q is no number from 0 to 1."""
    text = next((parameter.removeprefix("q=") for parameter in parameters if parameter.startswith("q=")), "1")
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0


def _npy(values: npt.NDArray[np.floating]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()
