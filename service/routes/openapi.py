"""Adds to FastAPI's OpenAPI document what it cannot infer: bodies of several types, and problems."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

from rankone.model.preprocessing import MEDIA_TYPES

_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
_IMAGES: Final = {"images": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}}

PUBLIC: Final = frozenset({"/healthz", "/readyz"})
"""Described routes that need no key."""
_KEY: Final = {"type": "http", "scheme": "bearer", "description": "A key that `rankone keys add` made"}

PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {"description": "What was wrong with the request", "content": {"application/problem+json": {}}},
    "5XX": {"description": "Why it cannot be answered now", "content": {"application/problem+json": {}}},
}


def described(document: dict[str, Any], prefix: str, *, needs_key: bool) -> dict[str, Any]:
    """The app's OpenAPI document for whoever reaches it under `prefix`, and needs a key or does not."""
    document = {**document, "servers": [{"url": prefix or "/"}]}
    if not needs_key:
        return document
    document["components"] = {**document.get("components", {}), "securitySchemes": {"key": _KEY}}
    document["security"] = [{"key": []}]
    document["paths"] = {
        path: {method: {**operation, "security": []} for method, operation in operations.items()}
        if path in PUBLIC
        else operations
        for path, operations in document["paths"].items()
    }
    return document


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


def json_or(schema: type[BaseModel], media_type: str) -> dict[str, Any]:
    """An answer as JSON or, by the Accept header or `format`, as a picture or as one .npy array (n, dim)."""
    return {"model": schema, "content": {media_type: _BINARY}}
