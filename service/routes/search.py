"""`POST /search` and `POST /indexes/{index}/search`: the nearest items to images, vectors or items."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import anyio.to_thread
import numpy as np
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field, model_validator

from rankone import index as indexing
from rankone.index import DEFAULT, AnyIndex, SearchOptions, Vectors
from rankone.service.errors import Problem
from rankone.service.routes.additions import StoredId, Vector
from rankone.service.routes.checks import as_vectors, of_length
from rankone.service.routes.forms import check_count, parse_fields, read_image_form
from rankone.service.routes.items import MetadataFilter, parse_filter
from rankone.service.routes.openapi import image_body
from rankone.service.routes.requests import JsonIn, QueryIn, RuntimeDep, decode_base64, read_json
from rankone.service.routes.responses import json_response
from rankone.service.runtime import LOOKUPS, Runtime, in_thread

router = APIRouter(tags=["index"])

_K: Final = 10
OPTIONS: Final = ("k", "min_score", "filter", "group_by")


class OptionsIn(QueryIn):
    """How many neighbours are answered, and which; in the query, or as fields of a form. `filter` is JSON."""

    k: int = Field(default=_K, ge=1)
    min_score: float | None = Field(default=None, ge=-1, le=1)
    filter: str | None = None
    group_by: str | None = None


class ImageSearchIn(OptionsIn):
    """A search of images in an index."""

    index: str = DEFAULT


class JsonOptionsIn(JsonIn):
    """How many neighbours are answered, and which.

    With `group_by`, a field of the metadata, only the best item of each value of that field is a hit.
    """

    k: int = Field(default=_K, ge=1)
    min_score: float | None = Field(default=None, ge=-1, le=1)
    filter: MetadataFilter | None = None
    group_by: str | None = None


class ImagesSearchIn(JsonOptionsIn):
    """Images as base64 or `data:` URIs, each a query."""

    images: list[str]


class SearchIn(JsonOptionsIn):
    """A batch of queries: images, vectors or ids of items; or one query by examples: more like these, less like those.

    With `exclude_self`, an item is not a hit of its own id.
    """

    images: list[str] | None = None
    vectors: list[Vector] | None = None
    ids: list[StoredId] | None = None
    positive: list[StoredId] = Field(default_factory=list)
    negative: list[StoredId] = Field(default_factory=list)
    exclude_self: bool = False

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

    @property
    def excluded(self) -> list[list[str]] | None:
        """The items that are no hits, for each query. Examples are never hits of their own query."""
        if self.positive:
            return [[*self.positive, *self.negative]]
        return [[item_id] for item_id in self.ids] if self.exclude_self and self.ids is not None else None


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


@router.post("/search", response_model=SearchOut, openapi_extra=image_body(ImagesSearchIn, OptionsIn))
async def search(request: Request, runtime: RuntimeDep, query: Annotated[ImageSearchIn, Query()]) -> Response:
    """The nearest items of the index to each image, best first. Options are given in the query or in the body."""
    return await _search(query.index, request, runtime, query, ImagesSearchIn)


@router.post("/indexes/{index}/search", response_model=SearchOut, openapi_extra=image_body(SearchIn, OptionsIn))
async def search_index(
    index: str, request: Request, runtime: RuntimeDep, query: Annotated[OptionsIn, Query()]
) -> Response:
    """A batch of queries: images in any form, or vectors, ids or examples as JSON. Options are in the query or the body."""
    return await _search(index, request, runtime, query, SearchIn)


async def _search(
    index: str, request: Request, runtime: Runtime, query: OptionsIn, schema: type[ImagesSearchIn | SearchIn]
) -> Response:
    target, settings = await runtime.index(index), runtime.settings
    excluded: Sequence[Sequence[str]] | None = None
    if (form := await read_image_form(request, settings.max_images, OPTIONS)) is not None:
        wanted = wanted_of(settings.max_k, query, parse_fields(form.fields, OptionsIn))
        vectors = of_length(await runtime.inference(form.images), target.spec.dim)
    else:
        asked = await read_json(request, schema)
        wanted = wanted_of(settings.max_k, query, asked)
        vectors = await _vectors(asked, target, runtime)
        excluded = asked.excluded if isinstance(asked, SearchIn) else None
    hits = await asyncio.wrap_future(target.submit_search(wanted.query(vectors, excluded)))
    about = {"kind": target.spec.kind, "backend": target.backend, "recall": target.recall}
    return await json_response({"results": hits, **about})


async def _vectors(asked: ImagesSearchIn | SearchIn, target: AnyIndex, runtime: Runtime) -> Vectors:
    """The vectors of the queries (n, dim)."""
    max_images, dim = runtime.settings.max_images, target.spec.dim
    if asked.images is not None:
        check_count(len(asked.images), max_images)
        return of_length(await runtime.inference(await decode_base64(asked.images)), dim)
    assert isinstance(asked, SearchIn)
    check_count(len(asked.ids or asked.vectors or [*asked.positive, *asked.negative]), max_images)
    if asked.ids is not None:
        return await in_thread(LOOKUPS, target.vectors, asked.ids)
    if asked.vectors is not None:
        return await anyio.to_thread.run_sync(as_vectors, asked.vectors, dim)
    return await in_thread(LOOKUPS, target.direction, asked.positive, asked.negative)


@dataclass(frozen=True)
class Wanted:
    """Which neighbours a request wants, by its query, form or JSON."""

    k: int
    least: float
    where: indexing.Filter | None
    group_by: indexing.Field | None

    def query(self, vectors: Vectors, excluded: Sequence[Sequence[str]] | None) -> indexing.Query:
        """The neighbours of vectors (n, dim), without the items that are excluded for each of them."""
        options = [SearchOptions(self.k, self.least, frozenset(ids)) for ids in excluded or [()] * len(vectors)]
        return indexing.Query(vectors, options, self.where, self.group_by)


def wanted_of(max_k: int, query: OptionsIn, body: OptionsIn | JsonOptionsIn) -> Wanted:
    """What the query and the body ask for.

    Raises:
        Problem: 422, both say something of the same option, or k is too large.
        InvalidFilter: of the filter or the group.
    """
    if doubled := sorted(query.model_fields_set & body.model_fields_set):
        raise Problem(422, f"{', '.join(doubled)}: given in the query and in the body; give it in one of them")
    given = {name: getattr(source, name) for source in (query, body) for name in source.model_fields_set}
    k, least, where, group_by = given.get("k", _K), given.get("min_score"), given.get("filter"), given.get("group_by")
    if k > max_k:
        raise Problem(422, f"k is {k}; at most {max_k} neighbours are searched")
    return Wanted(
        k,
        -np.inf if least is None else least,
        None if where is None else indexing.compiled(parse_filter(where) if isinstance(where, str) else where),
        None if group_by is None else indexing.path_of(group_by),
    )
