"""`POST /search` and `POST /indexes/{index}/search`: the nearest items to images, vectors or items."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from rankone import index as indexing
from rankone.index import AnyIndex, SearchOptions, Vectors
from rankone.service.reads import LOOKUPS, in_thread
from rankone.service.routes.checks import as_vectors, of_length
from rankone.service.routes.forms import Form, check_count, parse_fields, read_image_form
from rankone.service.routes.openapi import PROBLEMS, image_body
from rankone.service.routes.queries import (
    OPTIONS,
    ImageSearchIn,
    ImagesSearchIn,
    OptionsIn,
    SearchIn,
    Wanted,
    options_of,
    wanted_of,
)
from rankone.service.routes.requests import RuntimeDep, decode_base64, read_json
from rankone.service.routes.responses import json_response
from rankone.service.runtime import Runtime

router = APIRouter(tags=["index"])


class HitOut(BaseModel):
    """An item that a search found, with its cosine."""

    id: str
    score: float
    metadata: dict[str, Any]


class SearchOut(BaseModel):
    """For every query its nearest items, best first; `kind` says whether all items were compared or only likely ones.

    `recall` is the recall@10 of a compact index that was last measured, and `backend` where the index is kept.
    """

    results: list[list[HitOut]]
    kind: str
    backend: str
    recall: float | None


@router.post(
    "/search", responses={200: {"model": SearchOut}, **PROBLEMS}, openapi_extra=image_body(ImagesSearchIn, OptionsIn)
)
async def search(request: Request, runtime: RuntimeDep, query: Annotated[ImageSearchIn, Query()]) -> Response:
    """The nearest items of the index to each image, best first. Options are given in the query or in the body."""
    target = await runtime.index(query.index)
    if (form := await read_image_form(request, runtime.settings.max_images, OPTIONS)) is not None:
        return await _search_form(form, query, target, runtime)
    asked = await read_json(request, ImagesSearchIn)
    wanted = wanted_of(runtime.settings.max_k, query, asked)
    vectors = await _vectors_of_images(asked.images, target, runtime)
    return await _answer(target, vectors, [wanted.options()] * len(vectors), wanted)


@router.post(
    "/indexes/{index}/search",
    responses={200: {"model": SearchOut}, **PROBLEMS},
    openapi_extra=image_body(SearchIn, OptionsIn),
)
async def search_index(
    index: str, request: Request, runtime: RuntimeDep, query: Annotated[OptionsIn, Query()]
) -> Response:
    """A batch of queries: images in any form, or vectors, ids or examples as JSON. Options are in the query or the body."""
    target = await runtime.index(index)
    if (form := await read_image_form(request, runtime.settings.max_images, OPTIONS)) is not None:
        return await _search_form(form, query, target, runtime)
    asked = await read_json(request, SearchIn)
    wanted = wanted_of(runtime.settings.max_k, query, asked)
    vectors = await _query_vectors(asked, target, runtime)
    return await _answer(target, vectors, options_of(asked, wanted, len(vectors)), wanted)


async def _search_form(form: Form, query: OptionsIn, target: AnyIndex, runtime: Runtime) -> Response:
    wanted = wanted_of(runtime.settings.max_k, query, parse_fields(form.fields, OptionsIn))
    vectors = of_length(await runtime.inference(form.images), target.spec.dim)
    return await _answer(target, vectors, [wanted.options()] * len(vectors), wanted)


async def _query_vectors(asked: SearchIn, target: AnyIndex, runtime: Runtime) -> Vectors:
    if asked.images is not None:
        return await _vectors_of_images(asked.images, target, runtime)
    check_count(len(asked.ids or asked.vectors or [*asked.positive, *asked.negative]), runtime.settings.max_images)
    if asked.ids is not None:
        return await in_thread(LOOKUPS, target.vectors, asked.ids)
    if asked.vectors is not None:
        return await anyio.to_thread.run_sync(as_vectors, asked.vectors, target.spec.dim)
    return await in_thread(LOOKUPS, target.direction, asked.positive, asked.negative)


async def _vectors_of_images(images: Sequence[str], target: AnyIndex, runtime: Runtime) -> Vectors:
    check_count(len(images), runtime.settings.max_images)
    return of_length(await runtime.inference(await decode_base64(images)), target.spec.dim)


async def _answer(target: AnyIndex, vectors: Vectors, options: Sequence[SearchOptions], wanted: Wanted) -> Response:
    hits = await asyncio.wrap_future(target.ask(indexing.Query(vectors, list(options), wanted.where, wanted.group_by)))
    about = {"kind": target.spec.kind, "backend": target.backend, "recall": target.recall}
    return await json_response({"results": hits, **about})
