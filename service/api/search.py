"""`POST /search` and `POST /indexes/{index}/search`: the nearest items to images, vectors or items."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import anyio.to_thread
import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Query, Request, Response

from service.api.openapi import IMAGE_BODY, PROBLEMS, SEARCH_BODY
from service.api.problems import Problem
from service.api.requests import RuntimeDep, check_count, decode_base64, media_type, read_images, read_json
from service.api.responses import json_response
from service.api.schemas import SearchIn, SearchOut
from service.api.vectors import as_vectors
from service.index import DEFAULT, Index
from service.runtime import Runtime

router = APIRouter(tags=["index"])

K = Annotated[int, Query(ge=1)]
Vectors = npt.NDArray[np.float32]


@router.post("/search", responses={200: {"model": SearchOut}, **PROBLEMS}, openapi_extra=IMAGE_BODY)
async def search(request: Request, runtime: RuntimeDep, k: K = 10, index: str = DEFAULT) -> Response:
    """The `k` nearest items of the index to each image, best first."""
    target = runtime.indexes[index]
    _check_k(k, runtime)
    images = await read_images(request, runtime.settings.max_images)
    return await _answer(target, (await runtime.inference(images)).embedding, k)


@router.post("/indexes/{index}/search", responses={200: {"model": SearchOut}, **PROBLEMS}, openapi_extra=SEARCH_BODY)
async def search_index(index: str, request: Request, runtime: RuntimeDep, k: K = 10) -> Response:
    """A batch of queries: images, vectors or ids as JSON, or images as multipart or raw body with `?k=`."""
    target = runtime.indexes[index]
    if media_type(request) != "application/json":
        return await search(request, runtime, k, index)
    query = await read_json(request, SearchIn)
    _check_k(query.k, runtime)
    return await _answer(target, await _query_vectors(query, target, runtime), query.k, query.min_score)


async def _query_vectors(query: SearchIn, target: Index, runtime: Runtime) -> Vectors:
    check_count(len(query.images or query.ids or query.vectors or []), runtime.settings.max_images)
    if query.images is not None:
        return (await runtime.inference(await decode_base64(query.images))).embedding
    if query.ids is not None:
        return await anyio.to_thread.run_sync(target.vectors, query.ids)
    return await anyio.to_thread.run_sync(as_vectors, query.vectors or [], runtime.bundle.manifest.dim)


def _check_k(k: int, runtime: Runtime) -> None:
    if k > runtime.settings.max_k:
        raise Problem(422, f"k is {k}; at most {runtime.settings.max_k} neighbours are searched")


async def _answer(target: Index, vectors: Vectors, k: int, min_score: float | None = None) -> Response:
    results = await anyio.to_thread.run_sync(partial(target.search, vectors, k, min_score))
    return await json_response({"results": results})
