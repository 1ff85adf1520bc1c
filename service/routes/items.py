"""`/indexes/{index}/items`: items added, read and deleted. An answer of success means: it is on disk."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import anyio.to_thread
import numpy as np
import orjson
from fastapi import APIRouter, Query, Request, Response

from rankone.index import Index, Item, Vectors, compiled
from rankone.service.reads import LOOKUPS, SCANS
from rankone.service.rejections import at_places
from rankone.service.routes.metadata import check_metadata
from rankone.service.routes.openapi import ITEMS_BODY, PROBLEMS, json_body
from rankone.service.routes.problems import Problem
from rankone.service.routes.requests import (
    RuntimeDep,
    check_count,
    decode_base64,
    media_type,
    parse_json,
    read_form,
    read_json,
)
from rankone.service.routes.responses import json_response
from rankone.service.routes.schemas import (
    AddedOut,
    DeletedOut,
    FormItem,
    FormItems,
    IdsIn,
    ItemIn,
    ItemOut,
    ItemsIn,
    ItemsOut,
)
from rankone.service.routes.vectors import as_vectors
from rankone.service.runtime import Runtime

router = APIRouter(prefix="/indexes/{index}/items", tags=["index"])


@dataclass(frozen=True)
class _New:
    """An item as it was sent: the encoded image or the vector, one of them."""

    id: str
    metadata: dict[str, Any]
    image: bytes | None = None
    vector: Sequence[float] | None = None


@router.post("", status_code=201, responses={201: {"model": AddedOut}, **PROBLEMS}, openapi_extra=ITEMS_BODY)
async def add_items(index: str, request: Request, runtime: RuntimeDep) -> Response:
    """Adds items, or replaces those whose id is there; all of the request, or nothing."""
    target = runtime.index(index)
    is_form = media_type(request) == "multipart/form-data"
    new = await (_read_form_items if is_form else _read_json_items)(request, runtime)
    await anyio.to_thread.run_sync(check_metadata, [item.metadata for item in new], runtime.settings.max_metadata_bytes)
    vectors, thumbnails = await _embedded(new, runtime, target)
    items = await anyio.to_thread.run_sync(_items, new, vectors, thumbnails)
    stored = await asyncio.wrap_future(await anyio.to_thread.run_sync(target.submit, items))
    return await json_response({"ids": [item.id for item in items], "sequence": stored.sequence}, 201)


@router.get("", responses={200: {"model": ItemsOut}, **PROBLEMS})
async def list_items(
    index: str,
    request: Request,
    runtime: RuntimeDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: str = "0",
    filter: str | None = None,  # noqa: A002 - the name in the contract
) -> Response:
    """A page of items in the order they were added; pass `next_cursor` on as `cursor` for the next one.

    `filter` is a filter on metadata as JSON.
    """
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 18:
        raise Problem(422, f"{cursor!r} is not a cursor; pass on the next_cursor of the page before")
    await request.body()  # there is none; from now on its client is heard leaving
    where = None if filter is None else compiled(_parsed(filter))
    reads = LOOKUPS if where is None else SCANS
    page = await reads(runtime.index(index).page, limit + 1, int(cursor), where)
    items = [{"id": item.id, "metadata": item.metadata} for _, item in page[:limit]]
    return await json_response({"items": items, "next_cursor": str(page[limit - 1][0]) if len(page) > limit else None})


@router.post("/delete", responses={200: {"model": DeletedOut}, **PROBLEMS}, openapi_extra=json_body(IdsIn))
async def delete_items(index: str, request: Request, runtime: RuntimeDep) -> DeletedOut:
    """Deletes the items with these ids, or those that a filter holds for; ids that are not there are no error."""
    target = runtime.index(index)
    body = await read_json(request, IdsIn)
    where = None if body.filter is None else compiled(body.filter)
    done = await asyncio.wrap_future(target.submit_delete(body.ids or (), where))
    return DeletedOut(deleted=len(done.removed))


@router.get("/{item_id:path}", responses={200: {"model": ItemOut}, **PROBLEMS})
async def get_item(
    index: str,
    item_id: str,
    request: Request,
    runtime: RuntimeDep,
    vector: bool = False,
    thumbnail: bool = False,
) -> Response:
    """One item; with `vector=true` its embedding as it is kept, with `thumbnail=true` its small JPEG, if the index has one."""
    await request.body()
    item = await LOOKUPS(runtime.index(index).get, item_id)
    body: dict[str, Any] = {"id": item.id, "metadata": item.metadata, "sha256": item.sha256}
    if vector:
        body["vector"] = np.asarray(item.vector)
    if thumbnail:
        body["thumbnail"] = None if item.thumbnail is None else base64.b64encode(item.thumbnail).decode()
    return await json_response(body)


@router.delete("/{item_id:path}", responses=PROBLEMS)
async def delete_item(index: str, item_id: str, runtime: RuntimeDep) -> DeletedOut:
    """Deletes one item; 404 where there is none."""
    done = await asyncio.wrap_future(runtime.index(index).submit_delete([item_id]))
    if not done.removed:
        raise Problem(404, f"there is no item {item_id!r}")
    return DeletedOut(deleted=1)


async def _read_json_items(request: Request, runtime: Runtime) -> list[_New]:
    items = (await read_json(request, ItemsIn)).items
    check_count(len(items), runtime.settings.max_images)
    places = [place for place, item in enumerate(items) if item.image is not None]
    with at_places(places):
        images = iter(await decode_base64([items[place].image or "" for place in places]))
    return [
        _New(_id_of(item), item.metadata, next(images) if item.image is not None else None, item.vector)
        for item in items
    ]


async def _read_form_items(request: Request, runtime: Runtime) -> list[_New]:
    form = await read_form(request, runtime.settings.max_images)
    entries = [FormItem()] * len(form.images)
    if form.items is not None:
        entries = (await parse_json(form.items, FormItems, runtime)).root
    if len(entries) != len(form.images):
        raise Problem(422, f"{len(form.images)} images, but the part 'items' describes {len(entries)}")
    return [_New(_id_of(entry), entry.metadata, image) for entry, image in zip(entries, form.images, strict=True)]


async def _embedded(new: list[_New], runtime: Runtime, target: Index) -> tuple[Vectors, dict[int, bytes | None]]:
    """The vectors of a request, embedded or checked, each in its place, and by their places the thumbnails of its images."""
    dim = runtime.bundle.manifest.dim
    vectors = np.empty((len(new), dim), np.float32)
    given = {place: item.vector for place, item in enumerate(new) if item.vector is not None}
    with at_places(list(given)):
        vectors[list(given)] = await anyio.to_thread.run_sync(as_vectors, list(given.values()), dim)
    images = {place: item.image for place, item in enumerate(new) if item.image is not None}
    if not images:
        return vectors, {}
    with at_places(list(images)):
        inferred = await runtime.inference(list(images.values()), thumbnails=target.spec.thumbnails)
    vectors[list(images)] = inferred.embedding
    return vectors, dict(zip(images, inferred.thumbnails, strict=True))


def _items(new: list[_New], vectors: Vectors, thumbnails: dict[int, bytes | None]) -> list[Item]:
    """What is to be kept of each, with the digest of its file."""
    items = []
    for place, (item, vector) in enumerate(zip(new, vectors, strict=True)):
        digest = None if item.image is None else hashlib.sha256(item.image).hexdigest()
        items.append(Item(item.id, vector, item.metadata, digest, thumbnails.get(place)))
    return items


def _parsed(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Problem(422, f"the filter is not JSON: {error}") from error


def _id_of(item: ItemIn | FormItem) -> str:
    return uuid.uuid4().hex if item.id is None else item.id
