"""Items as clients add them: JSON or a form, images embedded, vectors checked, all in the order of the request."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import anyio.to_thread
import numpy as np
from fastapi import Request
from pydantic import AfterValidator, Field, RootModel, model_validator

from rankone.index import Item, Vectors
from rankone.service.errors import Problem, at_places
from rankone.service.routes.checks import as_vectors, check_id, check_metadata, of_length
from rankone.service.routes.forms import check_count, media_type, read_form
from rankone.service.routes.requests import JsonIn, decode_base64, parse_json, read_json
from rankone.service.runtime import Runtime

StoredId = Annotated[str, Field(min_length=1, max_length=255)]
"""The id of an item that may be there: earlier versions accepted any text."""
ItemId = Annotated[StoredId, AfterValidator(check_id)]
"""The id of a new item."""
Vector = Annotated[list[float], Field(max_length=1_000_000)]
"""Compared with the length of the index's vectors later; the bound only ends the reading of nonsense."""


class FormItem(JsonIn):
    """What the part `items` of a form says of the image at the same place: its id (made up if absent) and metadata."""

    id: ItemId | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class ItemIn(FormItem):
    """An item to add: an image or its embedding, under an id (made up if absent), with metadata."""

    image: str | None = None
    vector: Vector | None = None

    @model_validator(mode="after")
    def _one_source(self) -> ItemIn:
        if (self.image is None) == (self.vector is None):
            raise ValueError("an item has either an image or a vector")
        return self


class ItemsIn(JsonIn):
    """Items to add or replace."""

    items: list[ItemIn]


class FormItems(RootModel[list[FormItem]]):
    """The part `items` of a form: one entry an image, in the same order."""


@dataclass(frozen=True)
class _New:
    """An item as it was sent: the encoded image or the vector, one of them."""

    id: str
    metadata: dict[str, Any]
    image: bytes | None = None
    vector: Sequence[float] | None = None


async def read_items(request: Request, runtime: Runtime, dim: int, *, thumbnails: bool) -> list[Item]:
    """The items of a request, ready to be stored in an index of vectors (dim,).

    Raises:
        Problem: the body cannot be read, or holds nothing or too much; metadata that is too long or too deep.
        InputsRejected: images or vectors that cannot be used, each by its place in the request.
    """
    is_form = media_type(request) == "multipart/form-data"
    new = await (_read_form if is_form else _read_json)(request, runtime)
    await anyio.to_thread.run_sync(check_metadata, [item.metadata for item in new], runtime.settings.max_metadata_bytes)
    vectors, small = await _embedded(new, runtime, dim, thumbnails)
    return await anyio.to_thread.run_sync(_items, new, vectors, small)


async def _read_json(request: Request, runtime: Runtime) -> list[_New]:
    items = (await read_json(request, ItemsIn)).items
    check_count(len(items), runtime.settings.max_images)
    places = [place for place, item in enumerate(items) if item.image is not None]
    with at_places(places):
        images = iter(await decode_base64([items[place].image or "" for place in places]))
    return [
        _New(_id_of(item), item.metadata, next(images) if item.image is not None else None, item.vector)
        for item in items
    ]


async def _read_form(request: Request, runtime: Runtime) -> list[_New]:
    form = await read_form(request, runtime.settings.max_images, ["items"])
    entries = [FormItem()] * len(form.images)
    if (described := form.fields.get("items")) is not None:
        entries = (await parse_json(described, FormItems, runtime)).root
    if len(entries) != len(form.images):
        raise Problem(422, f"{len(form.images)} images, but the part 'items' describes {len(entries)}")
    return [_New(_id_of(entry), entry.metadata, image) for entry, image in zip(entries, form.images, strict=True)]


async def _embedded(
    new: list[_New], runtime: Runtime, dim: int, thumbnails: bool
) -> tuple[Vectors, dict[int, bytes | None]]:
    """The vectors of the items, given or embedded, each in its place; and the thumbnails of images by their places."""
    vectors = np.empty((len(new), dim), np.float32)
    given = {place: item.vector for place, item in enumerate(new) if item.vector is not None}
    with at_places(list(given)):
        vectors[list(given)] = await anyio.to_thread.run_sync(as_vectors, list(given.values()), dim)
    images = {place: item.image for place, item in enumerate(new) if item.image is not None}
    if not images:
        return vectors, {}
    with at_places(list(images)):
        inferred = await runtime.inference(list(images.values()), thumbnails=thumbnails)
    vectors[list(images)] = of_length(inferred, dim)
    return vectors, dict(zip(images, inferred.thumbnails, strict=True))


def _items(new: list[_New], vectors: Vectors, thumbnails: dict[int, bytes | None]) -> list[Item]:
    items = []
    for place, (item, vector) in enumerate(zip(new, vectors, strict=True)):
        digest = None if item.image is None else hashlib.sha256(item.image).hexdigest()
        items.append(Item(item.id, vector, item.metadata, digest, thumbnails.get(place)))
    return items


def _id_of(item: FormItem) -> str:
    return uuid.uuid4().hex if item.id is None else item.id
