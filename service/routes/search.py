"""`POST /search` and `POST /indexes/{index}/search`: the nearest items to images, vectors or items."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import anyio.to_thread
import numpy as np
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field, model_validator

from rankone import index as indexing
from rankone.index import DEFAULT, Index, SearchOptions, Vectors
from rankone.service.errors import Problem
from rankone.service.reads import LOOKUPS, in_thread
from rankone.service.routes.additions import ItemId, Vector
from rankone.service.routes.checks import as_vectors
from rankone.service.routes.items import MetadataFilter
from rankone.service.routes.lengths import of_length
from rankone.service.routes.openapi import PROBLEMS, image_body
from rankone.service.routes.requests import (
    ImagesIn,
    JsonIn,
    QueryIn,
    RuntimeDep,
    check_count,
    decode_base64,
    media_type,
    read_images,
    read_json,
)
from rankone.service.routes.responses import json_response
from rankone.service.runtime import Runtime

router = APIRouter(tags=["index"])


class NeighboursIn(QueryIn):
    """How many neighbours are answered, beside images that are not JSON."""

    k: int = Field(default=10, ge=1)


class ImageSearchIn(NeighboursIn):
    """A search of images in an index."""

    index: str = DEFAULT


class SearchIn(JsonIn):
    """A batch of queries: images, vectors or ids of items; or one query by examples: more like these, less like those.

    With `exclude_self`, an item is not a hit of its own id. With `group_by`, a field of the metadata, only the best item of
    each value of that field is a hit.
    """

    images: list[str] | None = None
    vectors: list[Vector] | None = None
    ids: list[ItemId] | None = None
    positive: list[ItemId] = Field(default_factory=list)
    negative: list[ItemId] = Field(default_factory=list)
    k: int = Field(default=10, ge=1)
    min_score: float | None = Field(default=None, ge=-1, le=1)
    filter: MetadataFilter | None = None
    exclude_self: bool = False
    group_by: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> SearchIn:
        sources = (self.images, self.vectors, self.ids, self.positive or None)
        if sum(source is not None for source in sources) != 1:
            raise ValueError("a search has exactly one of images, vectors, ids and positive")
        if self.negative and not self.positive:
            raise ValueError("negative examples go with positive ones")
        if self.exclude_self and self.ids is None:
            raise ValueError("exclude_self goes with ids")
        return self


class HitOut(BaseModel):
    """An item that a search found, with its cosine."""

    id: str
    score: float
    metadata: dict[str, Any]


class SearchOut(BaseModel):
    """For every query its nearest items, best first; `kind` says whether all items were compared or only likely ones."""

    results: list[list[HitOut]]
    kind: str


@router.post("/search", responses={200: {"model": SearchOut}, **PROBLEMS}, openapi_extra=image_body(ImagesIn))
async def search(request: Request, runtime: RuntimeDep, query: Annotated[ImageSearchIn, Query()]) -> Response:
    """The `k` nearest items of the index to each image, best first."""
    return await _search_images(request, runtime, query.index, query.k)


@router.post(
    "/indexes/{index}/search", responses={200: {"model": SearchOut}, **PROBLEMS}, openapi_extra=image_body(SearchIn)
)
async def search_index(
    index: str, request: Request, runtime: RuntimeDep, query: Annotated[NeighboursIn, Query()]
) -> Response:
    """A batch of queries: images, vectors, ids or examples as JSON, or images as multipart or raw body with `?k=`."""
    if media_type(request) != "application/json":
        return await _search_images(request, runtime, index, query.k)
    if query.model_fields_set:
        raise Problem(422, "k is a field of the JSON here, not a query parameter")
    target = await runtime.index(index)
    asked = await read_json(request, SearchIn)
    _check_k(asked.k, runtime)
    where = None if asked.filter is None else indexing.compiled(asked.filter)
    group_by = None if asked.group_by is None else indexing.path_of(asked.group_by)
    vectors = await _query_vectors(asked, target, runtime)
    return await _answer(target, indexing.Query(vectors, _options(asked, len(vectors)), where, group_by))


async def _search_images(request: Request, runtime: Runtime, index: str, k: int) -> Response:
    target = await runtime.index(index)
    _check_k(k, runtime)
    images = await read_images(request, runtime.settings.max_images)
    vectors = of_length(await runtime.inference(images), target.spec.dim)
    return await _answer(target, indexing.Query(vectors, [SearchOptions(k)] * len(vectors)))


async def _query_vectors(asked: SearchIn, target: Index, runtime: Runtime) -> Vectors:
    check_count(
        len(asked.images or asked.ids or asked.vectors or [*asked.positive, *asked.negative]),
        runtime.settings.max_images,
    )
    if asked.images is not None:
        return of_length(await runtime.inference(await decode_base64(asked.images)), target.spec.dim)
    if asked.ids is not None:
        return await in_thread(LOOKUPS, target.vectors, asked.ids)
    if asked.vectors is not None:
        return await anyio.to_thread.run_sync(as_vectors, asked.vectors, target.spec.dim)
    return await in_thread(LOOKUPS, target.direction, asked.positive, asked.negative)


def _options(asked: SearchIn, count: int) -> list[SearchOptions]:
    """What each query is to be answered with; examples are never hits of their own query."""
    least = -np.inf if asked.min_score is None else asked.min_score
    if asked.positive:
        return [SearchOptions(asked.k, least, frozenset((*asked.positive, *asked.negative)))]
    if asked.ids is not None and asked.exclude_self:
        return [SearchOptions(asked.k, least, frozenset((item_id,))) for item_id in asked.ids]
    return [SearchOptions(asked.k, least)] * count


def _check_k(k: int, runtime: Runtime) -> None:
    if k > runtime.settings.max_k:
        raise Problem(422, f"k is {k}; at most {runtime.settings.max_k} neighbours are searched")


async def _answer(target: Index, query: indexing.Query) -> Response:
    hits = await asyncio.wrap_future(target.ask(query))
    return await json_response({"results": hits, "kind": target.spec.kind})
