"""Reading multipart forms: images, and fields beside them, none of which is ignored."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from rankone.service.errors import Problem, explain

ANY_FILE: Final = ("application/octet-stream", "binary/octet-stream")
_MAX_PARTS: Final = 10_000
_MAX_FIELD: Final = 1 << 24
_MAX_NAMES: Final = 5
_MAX_NAME: Final = 60
_IMAGES: Final = "images"
_MEANS_IMAGES: Final = re.compile(r"(data|file|image|img|photo|picture|upload)s?(\[\d*\])?", re.IGNORECASE)
"""What other services call the part, and PHP's brackets."""

Body = TypeVar("Body", bound=BaseModel)


def media_type(request: Request) -> str:
    """The request's content type without its parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_image_form(request: Request, max_images: int, fields: Collection[str] = ()) -> MultipartForm | None:
    """A multipart form of images, or a raw body as a form of one image; None if it is neither.

    For the errors see `read_form`.
    """
    kind = media_type(request)
    if kind == "multipart/form-data":
        return await read_form(request, max_images, fields)
    if kind.startswith("image/") or kind in ANY_FILE:  # its bytes say which kind of image it is
        return MultipartForm([await request.body()])
    return None


@dataclass(frozen=True)
class MultipartForm:
    """A multipart form: the files of the parts named `images`, in order, and its other fields by name."""

    images: list[bytes]
    fields: Mapping[str, bytes] = field(default_factory=dict)


async def read_form(request: Request, max_images: int, fields: Collection[str] = ()) -> MultipartForm:
    """The request's multipart form of images and, at most once each, `fields`.

    Raises:
        Problem: 400 not a multipart form, or images that are no files; 413 too many of them; 422 parts of other names.
    """
    limits = {"max_files": _MAX_PARTS, "max_fields": _MAX_PARTS, "max_part_size": _MAX_FIELD}
    try:
        form = await _Parser(request.headers, request.stream(), **limits).parse()
        try:
            _check_names(form, fields)
            parts = form.getlist(_IMAGES)
            check_count(len(parts), max_images)
            images = [await _file(part) for part in parts]
            return MultipartForm(images, {name: await _text(form[name]) for name in fields if name in form})
        finally:
            await form.close()
    except MultiPartException as error:
        raise Problem(400, error.message) from error
    except (KeyError, UnicodeError) as error:
        raise Problem(400, "the body is not multipart/form-data, or its boundary is missing") from error


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


def parse_fields(fields: Mapping[str, bytes], schema: type[Body]) -> Body:
    """The fields of a form, which are all text, as `schema`; for the errors see `read_json`."""
    try:
        return schema.model_validate({name: text.decode() for name, text in fields.items()})
    except UnicodeError as error:
        raise Problem(400, f"the form holds text that is not UTF-8: {error}") from error
    except ValidationError as error:
        raise Problem(422, explain(error.errors(include_input=False, include_url=False))) from error


def _check_names(form: FormData, fields: Collection[str]) -> None:
    counts = Counter(name for name, _ in form.multi_items())
    unknown = [name for name in counts if name not in (_IMAGES, *fields)]
    if mistaken := [name for name in unknown if _MEANS_IMAGES.fullmatch(name)]:
        raise Problem(422, f"images are sent in parts named {_IMAGES!r}, one part an image; rename {named(mistaken)}")
    if unknown:
        raise Problem(422, f"the form may have parts named {named((_IMAGES, *fields))}, not {named(unknown)}")
    if doubled := [name for name in fields if counts[name] > 1]:
        raise Problem(422, f"parts were sent twice: {named(doubled)}; send each once")


async def _file(part: UploadFile | str) -> bytes:
    if isinstance(part, str):
        raise Problem(400, "every part named 'images' must be a file (with a filename)")
    return await part.read()


async def _text(part: UploadFile | str) -> bytes:
    return part.encode() if isinstance(part, str) else await part.read()


def check_count(count: int, max_images: int) -> None:
    """Refuses a request with nothing in it (400) or too much (413)."""
    if count == 0:
        raise Problem(400, "the request is empty: it holds no images, vectors or ids")
    if count > max_images:
        raise Problem(413, f"{count} images, vectors or ids in one request; at most {max_images} are accepted")


def named(names: Sequence[str]) -> str:
    """The first of some names that a client sent, in quotes."""
    shown = ", ".join(repr(name[:_MAX_NAME]) for name in names[:_MAX_NAMES])
    return shown if len(names) <= _MAX_NAMES else f"{shown} and {len(names) - _MAX_NAMES} more"
