"""Searches a published version: the codes of its vectors propose candidates, whose vectors are read and compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import orjson

from rankone.index.cancellation import should_stop
from rankone.index.compact import Scorer
from rankone.index.errors import Cancelled
from rankone.index.filters import Field, Filter
from rankone.index.gallery import Vectors
from rankone.index.lance.filters import has_scalar, sql_of
from rankone.index.lance.reader import values_of
from rankone.index.lance.store import Published, faults
from rankone.index.search import Hit, Hits, Query, SearchOptions

DEPTH: Final = 200
"""Candidates, unless more were measured to be needed."""
_REFINE: Final = 10
"""Candidates for each neighbour that is asked for, if that is more."""
_MOST: Final = 50_000
"""Candidates, however many of them are excluded or of groups that were found."""
_PARTITIONS: Final = 20
"""Of the codes, that are searched at least."""
_FEW: Final = 50_000_000
"""Numbers. If the items that match a filter have fewer, they are all compared."""
_TILE: Final = 256


def search(found: Published, query: Query, depth: int | None = None) -> Hits:
    """The hits of a query: best first, ties by id. `depth` candidates are compared; as many as was measured, if not given."""
    scope = _Scope(found, query.where, query.group_by, depth or found.depth or DEPTH)
    with faults(found.name):
        return [scope.best(vector, option) for vector, option in zip(query.vectors, query.options, strict=True)]


class _Scope:
    """The items that a search may find: they match the filter and, with `group_by`, have that field."""

    def __init__(self, found: Published, where: Filter | None, group_by: Field | None, depth: int) -> None:
        self._dataset, self._spec, self._depth, self._group_by = found.dataset, found.spec, depth, group_by
        self._sql = None
        if where is not None or group_by is not None:
            self._sql = sql_of(where) if group_by is None else f"{sql_of(where)} AND {has_scalar(group_by)}"
        self._few: list[Any] | None = None
        if self._sql is not None and self._num_matching(_FEW // self._spec.dim) <= _FEW // self._spec.dim:
            self._few = list(self._read())

    def best(self, vector: Vectors, option: SearchOptions) -> list[Hit]:
        """The hits of a vector (dim,)."""
        wanted = max(self._depth, _REFINE * (option.k + len(option.exclude)))
        while True:
            if should_stop():
                raise Cancelled("the search was cancelled")
            found = self._candidates(vector, wanted)
            hits = self._hits(found, option)
            is_complete = len(found) < wanted or wanted >= _MOST or self._few is not None
            if len(hits) == option.k or is_complete or found[-1].score < option.min_score:
                return hits
            wanted = min(4 * wanted, _MOST)

    def _candidates(self, vector: Vectors, wanted: int) -> list[Hit]:
        score, found = Scorer(np.ascontiguousarray(vector, np.float32), self._spec.stored), list[Hit]()
        for batch in self._batches(vector, wanted):
            if vector.any():
                scores = np.clip([score(row.tobytes()) for row in values_of(batch, "vector")], -1, 1).tolist()
            else:
                scores = [0.0] * batch.num_rows
            found += map(Hit, values_of(batch, "id"), scores, map(orjson.loads, values_of(batch, "metadata")))
        return sorted(found, key=lambda hit: (-hit.score, hit.id))

    def _batches(self, vector: Vectors, wanted: int) -> Iterator[Any]:
        if self._few is not None:
            return iter(self._few)
        if not vector.any():  # the embedding of a black image, which scores 0 with every item
            return self._read(["id", "metadata"], order_by=["id"], limit=wanted)
        nearest = {"column": "vector", "q": vector, "k": wanted, "minimum_nprobes": _PARTITIONS}
        return self._read(nearest=nearest, prefilter=True, disable_scoring_autoprojection=True)

    def _read(self, columns: Any = ("id", "metadata", "vector"), **options: Any) -> Iterator[Any]:
        scanner = self._dataset.scanner(list(columns), filter=self._sql, batch_size=_TILE, **options)
        yield from scanner.to_batches()

    def _num_matching(self, most: int) -> int:
        """How many items match, counted up to one more than `most`."""
        return int(self._dataset.scanner(["sequence"], filter=self._sql, limit=most + 1).to_table().num_rows)

    def _hits(self, found: list[Hit], option: SearchOptions) -> list[Hit]:
        hits, groups = list[Hit](), set[bytes]()
        for one in found:
            if len(hits) == option.k or one.score < option.min_score:
                break
            if one.id in option.exclude:
                continue
            if self._group_by is not None:
                if (label := _label(one.metadata, self._group_by)) in groups:
                    continue
                groups.add(label)
            hits.append(one)
        return hits


def _label(metadata: Any, field: Field) -> bytes:
    """A field of metadata as JSON, which tells 1 from true."""
    for name in field:
        metadata = metadata[name]
    return orjson.dumps(metadata)
