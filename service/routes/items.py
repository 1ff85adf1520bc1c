"""`/indexes/{index}/items`: items added, read and deleted. Success is answered when the change is on disk."""

from __future__ import annotations

import asyncio
import base64
from typing import Annotated, Any

import anyio.to_thread
import numpy as np
import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field, model_validator

from rankone.index import Patch, compiled
from rankone.service.addresses import ends_with
from rankone.service.errors import Problem
from rankone.service.routes.additions import ItemsIn, StoredId, read_items
from rankone.service.routes.checks import check_integers, check_metadata
from rankone.service.routes.openapi import form_or_json_body, json_body
from rankone.service.routes.requests import NO_QUERY, JsonIn, QueryIn, RuntimeDep, read_json
from rankone.service.routes.responses import cached_response, json_response
from rankone.service.runtime import LOOKUPS, SCANS, in_thread

router = APIRouter(prefix="/indexes/{index}/items", tags=["index"])

MetadataFilter = Annotated[dict[str, Any], Field(min_length=1)]
"""In the language of `rankone.index.filters`, which checks it."""


class AddedOut(BaseModel):
    """The ids in the order of the request; all of it is on disk."""

    ids: list[str]
    sequence: int


class PageIn(QueryIn):
    """Which page of the items; `filter` is a filter on metadata as JSON."""

    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str = Field(default="0", pattern="^[0-9]{1,18}$")
    filter: str | None = None


class ItemOut(BaseModel):
    """An item of an index; its vector and its thumbnail (base64 of a JPEG) only where they were asked for.

    `sha256` is of the image's file, where there was one.
    """

    id: str
    metadata: dict[str, Any]
    sha256: str | None = None
    vector: list[float] | None = None
    thumbnail: str | None = None


class ItemsOut(BaseModel):
    """A page of items, in the order they were added; `next_cursor` is null on the last one."""

    items: list[ItemOut]
    next_cursor: str | None


class ItemFieldsIn(QueryIn):
    """What is answered of an item beside its metadata."""

    vector: bool = False
    thumbnail: bool = False


class PatchIn(JsonIn):
    """A JSON merge patch (RFC 7396) of an item's metadata: fields are set, null removes one, the others stay."""

    metadata: dict[str, Any]


class PatchedOut(BaseModel):
    """The metadata that an item has now, on disk too."""

    id: str
    metadata: dict[str, Any]
    sequence: int


class IdsIn(JsonIn):
    """Items by their ids, or by a filter on their metadata."""

    ids: list[StoredId] | None = None
    filter: MetadataFilter | None = None

    @model_validator(mode="after")
    def _one_source(self) -> IdsIn:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("either ids or a filter says what to delete")
        return self


class DeletedOut(BaseModel):
    """How many items were deleted, on disk too."""

    deleted: int


@router.post(
    "",
    status_code=201,
    response_model=AddedOut,
    openapi_extra=form_or_json_body(ItemsIn, items={"type": "string"}),
    dependencies=[NO_QUERY],
)
async def add_items(index: str, request: Request, runtime: RuntimeDep) -> Response:
    """Adds items, or replaces those whose id exists; all of the request, or nothing."""
    target = await runtime.index(index)
    target.check_writable()
    items = await read_items(request, runtime, target.spec.dim, thumbnails=target.spec.thumbnails)
    stored = await asyncio.wrap_future(await anyio.to_thread.run_sync(target.submit, items))
    return await json_response({"ids": [item.id for item in items], "sequence": stored.sequence}, 201)


@router.get("", response_model=ItemsOut)
async def list_items(index: str, runtime: RuntimeDep, query: Annotated[PageIn, Query()]) -> Response:
    """A page of items in the order they were added; pass `next_cursor` on as `cursor` for the next one."""
    where = None if query.filter is None else compiled(parse_filter(query.filter))
    pool = LOOKUPS if where is None else SCANS
    page = await in_thread(pool, (await runtime.index(index)).page, query.limit + 1, int(query.cursor), where)
    items = [{"id": item.id, "metadata": item.metadata} for _, item in page[: query.limit]]
    next_cursor = str(page[query.limit - 1][0]) if len(page) > query.limit else None
    return await json_response({"items": items, "next_cursor": next_cursor})


@router.post("/delete", openapi_extra=json_body(IdsIn), dependencies=[NO_QUERY])
async def delete_items(index: str, request: Request, runtime: RuntimeDep) -> DeletedOut:
    """Deletes the items with these ids, or those that match a filter; ids that do not exist are no error."""
    target = await runtime.index(index)
    body = await read_json(request, IdsIn)
    where = None if body.filter is None else compiled(body.filter)
    done = await asyncio.wrap_future(target.submit_delete(body.ids or (), where))
    return DeletedOut(deleted=len(done.removed))


@router.get(
    "/{item_id:path}/thumbnail",
    responses={200: {"content": {"image/jpeg": {}}}, 304: {"description": "The thumbnail is still the same"}},
    response_class=Response,
)
async def get_thumbnail(
    index: str,
    item_id: str,
    request: Request,
    runtime: RuntimeDep,
    query: Annotated[ItemFieldsIn, Query(include_in_schema=False)],
) -> Response:
    """The small JPEG of an item's image, up to 256 x 256; 404 where the item has none. `%2F` belongs to an id, `/` does not."""
    if not ends_with(request.scope, ("/thumbnail", "/thumbnail/")):
        return await get_item(index, f"{item_id}/thumbnail", runtime, query)
    if query.model_fields_set:
        raise Problem(422, f"a thumbnail has no query parameter {min(query.model_fields_set)!r}")
    target = await runtime.index(index)
    item = await in_thread(LOOKUPS, target.get, item_id)
    if item.thumbnail is None:
        why = "it was added as a vector, or without thumbnails" if target.spec.thumbnails else "its index keeps none"
        raise Problem(404, f"the item {item_id!r} has no thumbnail: {why}")
    return cached_response(item.thumbnail, "image/jpeg", request)


@router.get("/{item_id:path}", response_model=ItemOut)
async def get_item(index: str, item_id: str, runtime: RuntimeDep, query: Annotated[ItemFieldsIn, Query()]) -> Response:
    """One item; with `vector=true` its embedding as it is kept, with `thumbnail=true` its small JPEG, if it has one."""
    item = await in_thread(LOOKUPS, (await runtime.index(index)).get, item_id)
    body: dict[str, Any] = {"id": item.id, "metadata": item.metadata, "sha256": item.sha256}
    if query.vector:
        body["vector"] = np.asarray(item.vector)
    if query.thumbnail:
        body["thumbnail"] = None if item.thumbnail is None else base64.b64encode(item.thumbnail).decode()
    return await json_response(body)


@router.patch("/{item_id:path}", response_model=PatchedOut, openapi_extra=json_body(PatchIn), dependencies=[NO_QUERY])
async def patch_item(index: str, item_id: str, request: Request, runtime: RuntimeDep) -> Response:
    """Changes the metadata of an item and leaves its image; 404 where there is none. It then counts as added last."""
    target = await runtime.index(index)
    patch, max_bytes = (await read_json(request, PatchIn)).metadata, runtime.settings.max_metadata_bytes
    await anyio.to_thread.run_sync(check_metadata, [patch], max_bytes)
    done = await asyncio.wrap_future(target.submit_patch(Patch(item_id, patch, max_bytes)))
    metadata = orjson.Fragment(done.records[0].metadata)
    return await json_response({"id": item_id, "metadata": metadata, "sequence": done.sequence})


@router.delete("/{item_id:path}", dependencies=[NO_QUERY])
async def delete_item(index: str, item_id: str, runtime: RuntimeDep) -> DeletedOut:
    """Deletes one item; 404 where there is none."""
    target = await runtime.index(index)
    done = await asyncio.wrap_future(target.submit_delete([item_id]))
    if not done.removed:
        raise Problem(404, f"there is no item {item_id!r}")
    return DeletedOut(deleted=1)


def parse_filter(text: str) -> Any:
    """A filter that is sent as text. Raises Problem 422 if it is not JSON."""
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Problem(422, f"the filter is not JSON: {error}") from error
    check_integers(text.encode())
    return parsed
