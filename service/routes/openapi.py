"""What FastAPI cannot read off the code for its document: bodies of several types, and problems."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

from rankone.model.preprocessing import MEDIA_TYPES

_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
_IMAGES: Final = {"images": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}}

PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {"description": "What was wrong with the request", "content": {"application/problem+json": {}}},
    "5XX": {"description": "Why it cannot be answered now", "content": {"application/problem+json": {}}},
}


def json_body(schema: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """A body of JSON."""
    content = {"application/json": {"schema": schema.model_json_schema()}}
    return {"requestBody": {"required": required, "content": content}}


def form_or_json_body(schema: type[BaseModel], **fields: dict[str, Any]) -> dict[str, Any]:
    """A multipart form of images, with further fields, or JSON."""
    body = json_body(schema)
    form = {"type": "object", "properties": {**_IMAGES, **fields}, "required": ["images"]}
    body["requestBody"]["content"]["multipart/form-data"] = {"schema": form}
    return body


def image_body(schema: type[BaseModel], fields: type[BaseModel] | None = None) -> dict[str, Any]:
    """A multipart form of images, with further fields, or one image as it is, or JSON."""
    body = form_or_json_body(schema, **({} if fields is None else fields.model_json_schema()["properties"]))
    body["requestBody"]["content"] |= dict.fromkeys(MEDIA_TYPES, _BINARY)
    return body


def npy_or(schema: type[BaseModel]) -> dict[str, Any]:
    """An answer as JSON or, by the Accept header, as one .npy array (n, dim)."""
    return {"model": schema, "content": {"application/x-npy": _BINARY}}
