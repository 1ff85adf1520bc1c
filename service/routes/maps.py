"""`GET /indexes/{index}/map`: the map that `rankone index map` made of an index."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from rankone.service.reads import LOOKUPS, in_thread
from rankone.service.routes.openapi import PROBLEMS
from rankone.service.routes.requests import QueryIn, RuntimeDep
from rankone.service.routes.responses import json_response

router = APIRouter(prefix="/indexes/{index}/map", tags=["index"])


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


@router.get("", responses={200: {"model": MapOut}, **PROBLEMS})
async def get_map(index: str, runtime: RuntimeDep, query: Annotated[MapIn, Query()]) -> Response:
    """The map of an index, with the values of a metadata field for its colours; 404 where none was made."""
    view = await in_thread(LOOKUPS, (await runtime.index(index)).map, query.field)
    body: dict[str, Any] = {
        "sequence": view.map.sequence,
        "is_current": view.is_current,
        "count": view.map.count,
        "shares": view.map.shares,
        "fields": view.map.fields,
        "ids": view.map.ids,
        "x": view.map.x,
        "y": view.map.y,
        "field": query.field,
        "values": view.values and [None if value is None else orjson.Fragment(value) for value in view.values],
    }
    return await json_response(body)
