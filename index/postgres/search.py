"""Searching: the database finds candidates, and their scores are computed here, as for files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import orjson

from rankone.index.compact import Scorer
from rankone.index.exact import ROUNDING
from rankone.index.filters import Field, Filter, Sql, joined
from rankone.index.gallery import Vectors
from rankone.index.postgres.database import Connection
from rankone.index.postgres.filters import has_scalar, label, sql_of
from rankone.index.postgres.records import to_bytes, to_vector
from rankone.index.postgres.tables import Entry, signs
from rankone.index.search import Hit, Hits, Query, SearchOptions

DEPTH: Final = 400
"""Candidates of a compact search whose recall was never measured."""
MOST_EXPLORED: Final = 1000
"""The largest `hnsw.ef_search`."""
_SPARE: Final = 16
"""Candidates beyond k, so that a tie at the end seldom takes a second search."""
_FEW: Final = 50_000_000
"""Numbers. If the items that match a filter have fewer, they are all compared: in a graph of which few items match, a search
takes long or finds too little."""


def search(connection: Connection, entry: Entry, query: Query, depth: int | None = None) -> Hits:
    """The hits of a query in the state of the database that the connection sees: best first, ties by id.

    A compact search looks at `depth` candidates; if not given, at as many as were measured to be needed, or `DEPTH`.
    """
    depth = depth or entry.depth or DEPTH
    scope = _Scope(connection, entry, query.where, query.group_by)
    compares_all = entry.spec.kind == "exact" or scope.has_few()
    answers = []
    for vector, option in zip(query.vectors, query.options, strict=True):
        found = None if compares_all or not vector.any() else scope.near(vector, option, depth)
        answers.append(scope.best(vector, option) if found is None else found)
    return answers


class _Scope:
    """The items that a search compares: those that match the filter and, with `group_by`, have that field."""

    def __init__(self, connection: Connection, entry: Entry, where: Filter | None, group_by: Field | None) -> None:
        self._connection, self._entry, self._dim = connection, entry, entry.spec.dim
        self._label = None if group_by is None else label(group_by)
        self._condition = sql_of(where)
        if group_by is not None:
            self._condition = joined("AND", [self._condition, has_scalar(group_by)])
        self._is_everything = where is None and group_by is None

    def has_few(self) -> bool:
        """Whether a filter leaves so few items that comparing them all is better than a graph."""
        if self._is_everything:
            return False
        most = _FEW // self._dim
        text = (
            f"SELECT count(*) FROM (SELECT FROM {self._entry.table} WHERE {self._condition.text} LIMIT %s) AS matching"  # noqa: S608
        )
        (count,) = self._connection.execute(text, (*self._condition.parameters, most + 1)).fetchone() or (0,)
        return bool(count <= most)

    def best(self, vector: Vectors, option: SearchOptions) -> list[Hit]:
        """The hits of a vector (dim,) among all items.

        The order of the database is within rounding of ours. If an item that was not fetched could still belong to the answer,
        four times as many are fetched.
        """
        wanted = option.k + _SPARE
        while True:
            found, bound = self._fetch(vector, option, wanted, Sql(self._entry.table))
            hits = _hits(found, option)
            worst = hits[-1].score if len(hits) == option.k else option.min_score
            if bound == -np.inf or bound < worst or not vector.any():
                return hits
            wanted *= 4

    def near(self, vector: Vectors, option: SearchOptions, depth: int) -> list[Hit] | None:
        """The hits of a vector (dim,) among candidates of the graph; None if it has found too few."""
        wanted = option.k + _SPARE
        depth = max(depth, 4 * wanted)
        settings = {"hnsw.ef_search": str(min(depth, MOST_EXPLORED)), "hnsw.iterative_scan": "strict_order"}
        for name, value in settings.items():
            self._connection.execute("SELECT set_config(%s, %s, true)", (name, value))
        given = to_vector(vector, self._entry.spec.dtype)
        order = f"vector <#> %s::{self._entry.vector_type}"
        if self._entry.has_signs:
            order = f"{signs('vector', self._dim)} <~> {signs('%s::vector', self._dim)}"
            given = to_vector(vector, "float32")
        text = f"(SELECT * FROM {self._entry.table} WHERE {self._condition.text} ORDER BY {order} LIMIT %s) AS near"  # noqa: S608
        source = Sql(text, (*self._condition.parameters, given, depth))
        found, _ = self._fetch(vector, option, wanted, source)
        hits = _hits(found, option)
        is_full = len(hits) == option.k or any(hit.score < option.min_score for hit in found)
        return hits if is_full else None

    def _fetch(self, vector: Vectors, option: SearchOptions, wanted: int, source: Sql) -> tuple[list[Hit], float]:
        """Up to `wanted` items of a table that are nearest by the database, and what no other scores more than."""
        distance = f"vector::vector({self._dim}) <#> %s"
        inner = f"SELECT id, metadata, vector, {distance} AS distance"
        parameters: list[object] = [to_vector(vector, "float32")]
        if self._label is not None:
            inner = (
                f"SELECT DISTINCT ON (label) id, metadata, vector, {distance} AS distance, {self._label.text} AS label"
            )
            parameters += self._label.parameters
        condition, excluded = self._condition, list(option.exclude)
        inner += f" FROM {source.text} WHERE {condition.text} AND id <> ALL(%s)"
        parameters += [*source.parameters, *condition.parameters, excluded]
        if self._label is not None:
            inner += " ORDER BY label, distance, id"
        text = f"SELECT id, metadata, vector, distance FROM ({inner}) AS scored ORDER BY distance, id LIMIT %s"  # noqa: S608
        rows = self._connection.execute(text, (*parameters, wanted), binary=True).fetchall()
        if not rows:
            return [], -np.inf
        spec = self._entry.spec
        score = Scorer(np.ascontiguousarray(vector, np.float32), spec.stored)
        scores = np.clip([score(to_bytes(row[2], spec)) for row in rows], -1, 1).tolist()
        found = [Hit(row[0], score, orjson.loads(row[1])) for row, score in zip(rows, scores, strict=True)]
        bound = ROUNDING - rows[-1][3] if len(rows) == wanted else -np.inf
        return sorted(found, key=lambda hit: (-hit.score, hit.id)), bound


def _hits(found: Sequence[Hit], option: SearchOptions) -> list[Hit]:
    return [hit for hit in found if hit.score >= option.min_score][: option.k]
