"""What a search may ask: queries of each kind, and options that are given in the query, in a form or as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from pydantic import Field, model_validator

from rankone import index as indexing
from rankone.index import DEFAULT, SearchOptions
from rankone.service.errors import Problem
from rankone.service.routes.additions import StoredId, Vector
from rankone.service.routes.items import MetadataFilter, parse_filter
from rankone.service.routes.requests import JsonIn, QueryIn

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


@dataclass(frozen=True)
class Wanted:
    """Which neighbours a request wants, by its query, form or JSON."""

    k: int
    least: float
    where: indexing.Filter | None
    group_by: indexing.Field | None

    def options(self, exclude: Iterable[str] = ()) -> SearchOptions:
        """Of one query."""
        return SearchOptions(self.k, self.least, frozenset(exclude))


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


def options_of(asked: SearchIn, wanted: Wanted, count: int) -> list[SearchOptions]:
    """What each query is to be answered with; examples are never hits of their own query."""
    if asked.positive:
        return [wanted.options((*asked.positive, *asked.negative))]
    if asked.ids is not None and asked.exclude_self:
        return [wanted.options((item_id,)) for item_id in asked.ids]
    return [wanted.options()] * count
