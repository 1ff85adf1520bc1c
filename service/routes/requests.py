"""Reading requests: images as multipart, raw body or JSON, and JSON bodies checked against their schema."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

import anyio.to_thread
import orjson
from fastapi import Depends, Query, Request
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import UploadFile

from rankone.model.preprocessing import MEDIA_TYPES, UndecodableImage
from rankone.service.errors import InputsRejected, Problem, Rejection, explain
from rankone.service.routes.checks import check_integers
from rankone.service.routes.multipart import parts_of
from rankone.service.runtime import Runtime

_ANY_FILE: Final = ("application/octet-stream", "binary/octet-stream")
_ACCEPTED: Final = (*MEDIA_TYPES, _ANY_FILE[0], "multipart/form-data", "application/json")

_MAX_ENTRIES: Final = 10_000
"""Of a list in a request: ids to delete, for instance. The settings limit images, items and queries further."""
_MAX_MARKS: Final = 2_000_000
"""Brackets and commas in a JSON body, beside those of its vectors: parsed, `[[],[],…]` takes twenty times its length."""

_LINE_BREAKS: Final = b" \t\r\n"
"""What `base64`, MIME and PEM put between the lines; it holds no data."""

Body = TypeVar("Body", bound=BaseModel)


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


RuntimeDep = Annotated[Runtime, Depends(runtime_of)]
NO_QUERY: Final = Depends(_no_query)
"""For routes without query parameters."""


def media_type(request: Request) -> str:
    """The request's content type without its parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_images(request: Request, max_images: int) -> list[bytes]:
    """The images of a request, in whichever of the three forms they come.

    Raises:
        Problem: 400 malformed, 413 too many, 415 another content type, 422 JSON of another shape.
        InputsRejected: not base64.
    """
    kind = media_type(request)
    if kind == "multipart/form-data":
        return (await read_form(request, max_images)).images
    if kind.startswith("image/") or kind in _ANY_FILE:  # its bytes say which kind of image it is
        return [await request.body()]
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


@dataclass(frozen=True)
class Form:
    """A multipart form: the files of the parts named `images`, in order, and the part `items`, if there is one."""

    images: list[bytes]
    items: bytes | None


async def read_form(request: Request, max_images: int) -> Form:
    """The request's multipart form.

    Raises:
        Problem: 400 not a multipart form, or images that are no files; 413 too many of them.
    """
    try:
        async with parts_of(request) as form:
            parts, items = form.getlist("images"), form.get("items")
            check_count(len(parts), max_images)
            return Form([await _file(part) for part in parts], None if items is None else await _text(items))
    except (KeyError, UnicodeError) as error:
        raise Problem(400, "the body is not multipart/form-data, or its boundary is missing") from error


async def _file(part: UploadFile | str) -> bytes:
    if isinstance(part, str):
        raise Problem(400, "every part named 'images' must be a file (with a filename)")
    return await part.read()


async def _text(part: UploadFile | str) -> bytes:
    return part.encode() if isinstance(part, str) else await part.read()


async def decode_base64(texts: Sequence[str]) -> list[bytes]:
    """Base64 or data URIs to bytes, off the event loop.

    Raises:
        InputsRejected: not base64, with every image at fault.
    """
    return await anyio.to_thread.run_sync(_decode_base64, texts)


def check_count(count: int, max_images: int) -> None:
    """Refuses a request with nothing in it (400) or too much (413)."""
    if count == 0:
        raise Problem(400, "the request is empty: it holds no images, vectors or ids")
    if count > max_images:
        raise Problem(413, f"{count} images, vectors or ids in one request; at most {max_images} are accepted")


def _decode_base64(texts: Sequence[str]) -> list[bytes]:
    images: list[bytes] = []
    rejections: list[Rejection] = []
    for index, text in enumerate(texts):
        payload = text.partition(",")[2] if text.startswith("data:") else text
        try:
            images.append(base64.b64decode(payload.encode("ascii").translate(None, _LINE_BREAKS), validate=True))
        except (binascii.Error, ValueError) as error:
            rejections.append(Rejection(index, UndecodableImage(f"not base64: {error}")))
    if rejections:
        raise InputsRejected(rejections)
    return images
