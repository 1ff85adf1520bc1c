"""Reading requests: images as multipart, raw body or JSON, and JSON bodies checked against their schema."""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Final

import anyio.to_thread
import orjson
from fastapi import Depends, Query, Request
from pydantic import BaseModel, ConfigDict, ValidationError

from rankone.model.errors import RankoneError
from rankone.model.preprocessing import MEDIA_TYPES, UndecodableImage
from rankone.service.errors import InputsRejected, Problem, explain
from rankone.service.routes.checks import check_integers
from rankone.service.routes.forms import ANY_FILE, Body, check_count, media_type, named, read_image_form
from rankone.service.runtime import Runtime

_ACCEPTED: Final = (*MEDIA_TYPES, ANY_FILE[0], "multipart/form-data", "application/json")

_MAX_ENTRIES: Final = 10_000
"""Of a list in a request: ids to delete, for instance. The settings limit images, items and queries further."""
_MAX_MARKS: Final = 2_000_000
"""Brackets and commas in a JSON body, beside those of its vectors: parsed, `[[],[],…]` takes twenty times its length."""

_LINE_BREAKS: Final = b" \t\r\n"
"""What `base64`, MIME and PEM put between the lines; it holds no data."""


class JsonIn(BaseModel):
    """A JSON body; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class QueryIn(BaseModel):
    """The query parameters of a route; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ImagesIn(JsonIn):
    """Images as base64 or `data:` URIs."""

    images: list[str]


async def runtime_of(request: Request) -> Runtime:
    """The runtime that answers the request.

    Raises:
        Problem: 503, nothing is loaded yet.
    """
    runtime: Runtime | None = request.state.runtime
    if runtime is None:
        raise Problem(503, "the service is still loading its bundle; ask /readyz")
    return runtime


async def _no_query(_: Annotated[QueryIn, Query()]) -> None: ...


async def _once(request: Request) -> None:
    counts = Counter(name for name, _ in request.query_params.multi_items())
    if doubled := [name for name, count in counts.items() if count > 1]:
        raise Problem(422, f"query parameters were sent twice: {named(doubled)}; send each once")


RuntimeDep = Annotated[Runtime, Depends(runtime_of)]
NO_QUERY: Final = Depends(_no_query)
"""For routes without query parameters."""
ONCE: Final = Depends(_once)
"""For all routes: of a parameter that is sent twice, either could be meant."""


async def read_images(request: Request, max_images: int) -> list[bytes]:
    """The images of a request, in whichever of the three forms they come.

    Raises:
        Problem: 400 malformed, 413 too many, 415 another content type, 422 JSON of another shape or unknown parts of a form.
        InputsRejected: not base64.
    """
    if (form := await read_image_form(request, max_images)) is not None:
        return form.images
    texts = (await read_json(request, ImagesIn)).images
    check_count(len(texts), max_images)
    return await decode_base64(texts)


async def read_json(request: Request, schema: type[Body]) -> Body:
    """The request's JSON body as `schema`, parsed off the event loop.

    Raises:
        Problem: 400 not JSON, 413 lists too long or too many, 415 another content type, 422 not as the schema says.
    """
    if (kind := media_type(request)) != "application/json":
        accepted = ", ".join(_ACCEPTED)
        raise Problem(415, f"content type {kind or 'missing'!r} is not accepted here; send one of {accepted}")
    return await parse_json(await request.body(), schema, await runtime_of(request))


async def parse_json(data: bytes, schema: type[Body], runtime: Runtime) -> Body:
    """JSON as `schema`, off the event loop; for the errors see `read_json`."""
    max_marks = _MAX_MARKS + runtime.settings.max_images * runtime.bundle.manifest.dim
    return await anyio.to_thread.run_sync(_parse_json, data, schema, max_marks)


def _parse_json(data: bytes, schema: type[Body], max_marks: int) -> Body:
    if sum(map(data.count, (b"[", b"{", b","))) > max_marks:
        raise Problem(413, f"the JSON has more than {max_marks:,} brackets and commas")
    try:
        parsed = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"the body is not JSON: {error}") from error
    parts = parsed.values() if isinstance(parsed, dict) else [parsed]
    if any(
        isinstance(part, list) and len(part) > _MAX_ENTRIES for part in parts
    ):  # pydantic would check every entry first
        raise Problem(413, f"a list in the request has more than {_MAX_ENTRIES:,} entries")
    check_integers(data)
    try:
        return schema.model_validate(parsed)
    except ValidationError as error:
        raise Problem(422, explain(error.errors(include_input=False, include_url=False))) from error


async def decode_base64(texts: Sequence[str]) -> list[bytes]:
    """Base64 or data URIs to bytes, off the event loop.

    Raises:
        InputsRejected: not base64, with every image at fault.
    """
    return await anyio.to_thread.run_sync(_decode_base64, texts)


def _decode_base64(texts: Sequence[str]) -> list[bytes]:
    images: list[bytes] = []
    rejections: dict[int, RankoneError] = {}
    for index, text in enumerate(texts):
        payload = text.partition(",")[2] if text.startswith("data:") else text
        try:
            images.append(base64.b64decode(payload.encode("ascii").translate(None, _LINE_BREAKS), validate=True))
        except (binascii.Error, ValueError) as error:
            rejections[index] = UndecodableImage(f"not base64: {error}")
    if rejections:
        raise InputsRejected(rejections)
    return images
