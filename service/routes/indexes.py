"""`/indexes` and `/indexes/{index}`: which indexes there are; made, described, dropped, and drawn as a map."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import anyio.to_thread
import orjson
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field

from rankone.index import DEFAULT, NAME, Dtype, IndexProblem, Kind, Spec, UnknownIndex
from rankone.service.errors import Problem
from rankone.service.routes.checks import check_dim
from rankone.service.routes.items import DeletedOut
from rankone.service.routes.openapi import json_body
from rankone.service.routes.requests import NO_QUERY, JsonIn, QueryIn, RuntimeDep, read_json
from rankone.service.routes.responses import json_response
from rankone.service.runtime import LOOKUPS, Runtime, in_thread

router = APIRouter(prefix="/indexes", tags=["index"])

IndexName = Annotated[str, Path(pattern=f"^{NAME}$")]


class IndexIn(JsonIn):
    """How an index is to be kept and searched; with `dim`, short embeddings of that length are kept."""

    dim: int | None = Field(default=None, ge=1)
    kind: Kind = "exact"
    dtype: Dtype = "float16"
    thumbnails: bool | None = None
    """If it is not said: what the service's settings say for a new index, what it is for one that exists."""


class DropIn(QueryIn):
    """The name of the index again, to confirm that it is meant."""

    confirm: str | None = None


class IndexOut(BaseModel):
    """An index and how many items it holds; without a count, it cannot be used now. `detail` says what is wrong with it.

    `dim` is the length of its vectors: short embeddings, if it is less than the bundle's. `backend` is where it is kept, and
    `device` where it is searched, if that is in the service.
    `recall` is the last recall@10 of a compact index against exact search that `rankone index check` measured.
    """

    name: str
    count: int | None
    dim: int | None = None
    kind: str | None = None
    dtype: str | None = None
    thumbnails: bool | None = None
    backend: str | None = None
    device: str | None = None
    recall: float | None = None
    detail: str | None = None


class IndexesOut(BaseModel):
    """All indexes."""

    indexes: list[IndexOut]


class MapIn(QueryIn):
    """`field` is a metadata field, as in filters, whose value now is answered for each point."""

    field: str | None = Field(default=None, min_length=1)


class MapOut(BaseModel):
    """A point (`x`, `y`) for each item of `ids`: the two principal components of the vectors.

    It shows the index after its change `sequence`, when it held `count` items; of more than 20,000, as many are drawn. It is
    not `is_current` if the index has changed since. `shares` are the parts of the variance along both axes, and `fields` the
    metadata fields that points can be coloured by. `values` are those of the `field` that was asked for, null where an item
    lacks it.
    """

    sequence: int
    is_current: bool
    count: int
    shares: tuple[float, float]
    fields: list[str]
    ids: list[str]
    x: list[float]
    y: list[float]
    field: str | None = None
    values: list[str | int | float | bool | None] | None = None


@router.get("", dependencies=[NO_QUERY])
async def list_indexes(runtime: RuntimeDep) -> IndexesOut:
    """All indexes, also those that cannot be used now, with the reason."""
    names = await anyio.to_thread.run_sync(runtime.indexes.names)
    return IndexesOut(indexes=[await _describe(name, runtime) for name in names])


@router.put(
    "/{index}",
    response_model=IndexOut,
    responses={201: {"model": IndexOut}},
    openapi_extra=json_body(IndexIn, required=False),
    dependencies=[NO_QUERY],
)
async def create_index(index: IndexName, request: Request, runtime: RuntimeDep) -> Response:
    """Makes an index: 201; 200 where the same is there already, 409 where another one is."""
    options = await read_json(request, IndexIn) if await request.body() else IndexIn()
    fingerprint, dim = runtime.bundle.fingerprint, check_dim(options.dim, runtime.bundle)
    thumbnails = await anyio.to_thread.run_sync(_thumbnails, options, index, runtime)
    spec = Spec(fingerprint, dim, options.dtype, options.kind, thumbnails)
    is_new = await anyio.to_thread.run_sync(runtime.indexes.create, index, spec)
    return await json_response((await _describe(index, runtime)).model_dump(), 201 if is_new else 200)


@router.get("/{index}", dependencies=[NO_QUERY])
async def describe_index(index: str, runtime: RuntimeDep) -> IndexOut:
    """One index."""
    await runtime.index(index)  # says why it cannot be used, if so
    return await _describe(index, runtime)


@router.delete("/{index}")
async def drop_index(index: str, runtime: RuntimeDep, query: Annotated[DropIn, Query()]) -> DeletedOut:
    """Drops an index with all its items, also one that cannot be used; 409 for the index `default`.

    `confirm` repeats the name: a client that shortens the path of an item must not drop the index.
    """
    if index == DEFAULT:
        raise Problem(
            409,
            f"the index {DEFAULT!r} always exists and cannot be dropped: delete its items instead, or, if it cannot be used, "
            "stop the service and remove its file",
        )
    counts = await anyio.to_thread.run_sync(runtime.indexes.counts)
    if index not in counts:
        raise UnknownIndex(f"there is no index {index!r}")
    if query.confirm != index:
        raise Problem(422, f"this drops the index {index!r} with all its items: to confirm that, add ?confirm={index}")
    await anyio.to_thread.run_sync(runtime.indexes.drop, index)
    return DeletedOut(deleted=counts[index])


@router.get("/{index}/map", response_model=MapOut)
async def get_map(index: str, runtime: RuntimeDep, query: Annotated[MapIn, Query()]) -> Response:
    """The map of an index, with the values of a metadata field for its colours; 404 where none was made."""
    view = await in_thread(LOOKUPS, (await runtime.index(index)).map, query.field)
    drawn = {name: getattr(view.map, name) for name in ("sequence", "count", "shares", "fields", "ids", "x", "y")}
    values: Any = view.values and [None if value is None else orjson.Fragment(value) for value in view.values]
    return await json_response({**drawn, "is_current": view.is_current, "field": query.field, "values": values})


def _thumbnails(options: IndexIn, name: str, runtime: Runtime) -> bool:
    if options.thumbnails is not None:
        return options.thumbnails
    is_new = name not in runtime.indexes.names()
    return runtime.settings.thumbnails if is_new else runtime.indexes.spec(name).thumbnails


async def _describe(name: str, runtime: Runtime) -> IndexOut:
    """An index; without a count where it cannot be used now. Raises UnknownIndex where there is none of that name."""
    try:
        index = await runtime.index(name)
    except UnknownIndex:
        raise
    except IndexProblem as problem:
        return IndexOut(name=name, count=None, detail=str(problem))
    about = {"backend": index.backend, "device": index.device, "recall": index.recall, "detail": index.problem}
    return IndexOut(name=name, count=len(index), **asdict(index.spec), **about)
