"""What FastAPI cannot read off the code: bodies of several types, and problems."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

from rankone.service.routes.schemas import ImagesIn, IndexIn, ItemsIn, SearchIn

_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
_IMAGES: Final = {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}

PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {"description": "What was wrong with the request", "content": {"application/problem+json": {}}},
    "5XX": {"description": "Why it cannot be answered now", "content": {"application/problem+json": {}}},
}


def _body(json_schema: type[BaseModel], *, raw: bool, form: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {
        "multipart/form-data": {"schema": {"type": "object", "properties": form, "required": ["images"]}},
        "application/json": {"schema": json_schema.model_json_schema()},
    }
    if raw:
        content |= {"image/jpeg": _BINARY, "image/png": _BINARY, "image/webp": _BINARY}
    return {"requestBody": {"required": True, "content": content}}


IMAGE_BODY: Final = _body(ImagesIn, raw=True, form={"images": _IMAGES})
SEARCH_BODY: Final = _body(SearchIn, raw=True, form={"images": _IMAGES})
ITEMS_BODY: Final = _body(ItemsIn, raw=False, form={"images": _IMAGES, "items": {"type": "string"}})


def json_body(schema: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """A body of JSON alone."""
    content = {"application/json": {"schema": schema.model_json_schema()}}
    return {"requestBody": {"required": required, "content": content}}


INDEX_BODY: Final = json_body(IndexIn, required=False)


def npy_or(schema: type[BaseModel]) -> dict[str, Any]:
    """An answer as JSON or, by the Accept header, as one .npy array (n, dim)."""
    return {"model": schema, "content": {"application/x-npy": _BINARY}}
