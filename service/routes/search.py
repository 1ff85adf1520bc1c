"""`POST /search` and `POST /indexes/{index}/search`: the nearest items to images, vectors or items."""

from __future__ import annotations

import asyncio
from typing import Annotated

import anyio.to_thread
import numpy as np
from fastapi import APIRouter, Query, Request, Response

from rankone import index as indexing
from rankone.index import DEFAULT, Index, Vectors, Wish
from rankone.index.interest import GivenUp
from rankone.service.context import current
from rankone.service.inference.job import DeadlinePassed
from rankone.service.reads import LOOKUPS
from rankone.service.routes.openapi import IMAGE_BODY, PROBLEMS, SEARCH_BODY
from rankone.service.routes.problems import Problem
from rankone.service.routes.requests import RuntimeDep, check_count, decode_base64, media_type, read_images, read_json
from rankone.service.routes.responses import json_response
from rankone.service.routes.schemas import SearchIn, SearchOut
from rankone.service.routes.vectors import as_vectors
from rankone.service.runtime import Runtime

router = APIRouter(tags=["index"])

K = Annotated[int, Query(ge=1)]


@router.post("/search", responses={200: {"model": SearchOut}, **PROBLEMS}, openapi_extra=IMAGE_BODY)
async def search(request: Request, runtime: RuntimeDep, k: K = 10, index: str = DEFAULT) -> Response:
    """The `k` nearest items of the index to each image, best first."""
    target = await _index(index, runtime)
    _check_k(k, runtime)
    images = await read_images(request, runtime.settings.max_images)
    vectors = (await runtime.inference(images)).embedding
    return await _answer(target, indexing.Query(vectors, [Wish(k)] * len(vectors)))


@router.post("/indexes/{index}/search", responses={200: {"model": SearchOut}, **PROBLEMS}, openapi_extra=SEARCH_BODY)
async def search_index(index: str, request: Request, runtime: RuntimeDep, k: K = 10) -> Response:
    """A batch of queries: images, vectors, ids or examples as JSON, or images as multipart or raw body with `?k=`."""
    if media_type(request) != "application/json":
        return await search(request, runtime, k, index)
    target = await _index(index, runtime)
    asked = await read_json(request, SearchIn)
    _check_k(asked.k, runtime)
    where = None if asked.filter is None else indexing.compiled(asked.filter)
    group_by = None if asked.group_by is None else indexing.path_of(asked.group_by)
    vectors = await _query_vectors(asked, target, runtime)
    wishes, deadline = _wishes(asked, len(vectors)), current().deadline
    return await _answer(target, indexing.Query(vectors, wishes, where, group_by, deadline))


async def _query_vectors(asked: SearchIn, target: Index, runtime: Runtime) -> Vectors:
    check_count(
        len(asked.images or asked.ids or asked.vectors or [*asked.positive, *asked.negative]),
        runtime.settings.max_images,
    )
    if asked.images is not None:
        return (await runtime.inference(await decode_base64(asked.images))).embedding
    if asked.ids is not None:
        return await LOOKUPS(target.vectors, asked.ids)
    if asked.vectors is not None:
        return await anyio.to_thread.run_sync(as_vectors, asked.vectors, runtime.bundle.manifest.dim)
    return await LOOKUPS(target.direction, asked.positive, asked.negative)


def _wishes(asked: SearchIn, count: int) -> list[Wish]:
    """What each query is to be answered with; examples are never answered with themselves."""
    least = -np.inf if asked.min_score is None else asked.min_score
    if asked.positive:
        return [Wish(asked.k, least, frozenset((*asked.positive, *asked.negative)))]
    if asked.ids is not None and asked.exclude_self:
        return [Wish(asked.k, least, frozenset((item_id,))) for item_id in asked.ids]
    return [Wish(asked.k, least)] * count


def _check_k(k: int, runtime: Runtime) -> None:
    if k > runtime.settings.max_k:
        raise Problem(422, f"k is {k}; at most {runtime.settings.max_k} neighbours are searched")


async def _index(name: str, runtime: Runtime) -> Index:
    return await anyio.to_thread.run_sync(runtime.indexes.__getitem__, name)


async def _answer(target: Index, query: indexing.Query) -> Response:
    try:
        hits = await asyncio.wait_for(asyncio.wrap_future(target.ask(query)), current().left_s)
    except (TimeoutError, GivenUp):
        raise DeadlinePassed("the index cannot answer in the time that this request allows") from None
    return await json_response({"results": hits, "kind": target.spec.kind})
