"""Measurements over all items of an index, item by item: recall of the compact search, and duplicates."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import faiss
import numpy as np

from rankone.index.backend import AnyReader
from rankone.index.backup import Tell, require_intact
from rankone.index.database import locked
from rankone.index.exact import ROUNDING
from rankone.index.gallery import Vectors
from rankone.index.index import Index
from rankone.index.items import Record
from rankone.index.search import Hits, Query, SearchOptions
from rankone.index.source import Source, opened, reading
from rankone.index.spec import Spec
from rankone.index.store import Store

_TILE: Final = 2048
"""Items that are compared at once; two tiles are in memory."""
_DEPTHS: Final = (100, 200, 400, 700, 1000)
_ENOUGH: Final = 0.99
"""Of the nearest items."""


class Tile(NamedTuple):
    """Some items of an index and their vectors (n, dim)."""

    ids: list[str]
    vectors: Vectors


@dataclass(frozen=True)
class Duplicates:
    """Groups of ids with the same file, and pairs of others with their cosine, highest first.

    `left_out` is the number of pairs beyond the limit.
    """

    same: list[list[str]]
    near: list[tuple[float, str, str]]
    left_out: int


def measure_recall(source: Source, num_queries: int, k: int, tell: Tell) -> float:
    """Recall@k of the index against exact search, for items drawn at random without their own hits; kept with the index.

    In PostgreSQL and Lance, a compact search then looks at the fewest candidates that were measured to find `_ENOUGH`.

    Raises:
        IndexProblem: the index is in a folder that another process uses.
    """
    if isinstance(source, Path):
        with locked(source.parent):
            queries, exact = _nearest(source, num_queries, k, tell)
            with closing(Index(source)) as index:
                recall = _recall(queries, index.search(queries.vectors, k + 1), exact, k)
            with closing(Store(source)) as store:
                store.write_recall(recall)
        return recall
    queries, exact = _nearest(source, num_queries, k, tell)
    query = Query(queries.vectors, [SearchOptions(k + 1)] * len(queries.ids))
    with opened(source.place) as indexes:
        stored = indexes.open(source.stem)
        for depth in _DEPTHS:
            recall = _recall(queries, stored.hits(query, depth), exact, k)
            if recall >= _ENOUGH:
                break
        stored.keep_recall(recall, depth)
    return recall


def _nearest(source: Source, num_queries: int, k: int, tell: Tell) -> tuple[Tile, list[list[tuple[float, str]]]]:
    """Items drawn from all over the index, and what is nearest to each, itself included."""
    with reading(source) as (reader, spec):
        queries = _drawn(reader, spec, num_queries)
        return queries, _exact(reader, spec, queries, k + 1, tell)


def _recall(queries: Tile, hits: Hits, exact: list[list[tuple[float, str]]], k: int) -> float:
    shares = []
    for own, found, nearest in zip(queries.ids, hits, exact, strict=True):
        wanted = [score for score, item_id in nearest if item_id != own][:k]
        scores = [hit.score for hit in found if hit.id != own][:k]
        if wanted:  # of items that are equally near, any will do
            shares.append(sum(score >= wanted[-1] - ROUNDING for score in scores) / len(wanted))
    return float(np.mean(shares or [1.0]))


def find_duplicates(source: Source, min_score: float, limit: int, tell: Tell) -> Duplicates:
    """Compares every item with every other: by the sha256 of its file, then by cosine, from `min_score` on.

    The best `limit` near pairs are kept. `tell` is called with the number of items that were compared with all.

    Raises:
        IndexDamaged: the file or an item is damaged.
    """
    with reading(source) as (reader, spec):
        same = _same_files(reader)
        group = {item_id: number for number, ids in enumerate(same) for item_id in ids}
        best: list[tuple[float, str, str]] = []
        num_found = 0
        for number, first in enumerate(_tiles(reader, spec)):
            for later, second in islice(enumerate(_tiles(reader, spec)), number, None):
                for pair in _near_pairs(first, second, min_score, is_same_tile=later == number):
                    if group.get(pair[1], -1) != group.get(pair[2], -2):
                        num_found += 1
                        (heapq.heappush if len(best) < limit else heapq.heappushpop)(best, pair)
            tell(len(first.ids))
    near = sorted(best, key=lambda pair: (-pair[0], pair[1], pair[2]))
    return Duplicates(same, near, num_found - len(near))


def _tiles(reader: AnyReader, spec: Spec) -> Iterator[Tile]:
    """All items in order. Raises IndexDamaged if one is damaged."""
    records = (require_intact(record) for _, record in reader.everything())
    while tile := list(islice(records, _TILE)):
        yield _tile(tile, spec)


def _tile(records: list[Record], spec: Spec) -> Tile:
    vectors = np.frombuffer(b"".join(record.vector for record in records), spec.stored).reshape(-1, spec.dim)
    return Tile([record.id for record in records], vectors.astype(np.float32))


def _drawn(reader: AnyReader, spec: Spec, count: int) -> Tile:
    """Items from all over the index."""
    total = reader.count()
    drawn = set(np.random.default_rng(0).choice(total, min(count, total), replace=False).tolist()) if total else set()
    return _tile([record for place, (_, record) in enumerate(reader.everything()) if place in drawn], spec)


def _exact(reader: AnyReader, spec: Spec, queries: Tile, k: int, tell: Tell) -> list[list[tuple[float, str]]]:
    """Scores and ids of the k nearest to each query, among all vectors on disk."""
    best: list[list[tuple[float, str]]] = [[] for _ in queries.ids]
    for tile in _tiles(reader, spec):
        k_here = min(k, len(tile.ids))
        scores, rows = faiss.knn(queries.vectors, tile.vectors, k_here, metric=faiss.METRIC_INNER_PRODUCT)
        for found, row_scores, row in zip(best, scores.tolist(), rows.tolist(), strict=True):
            found += [(score, tile.ids[place]) for score, place in zip(row_scores, row, strict=True)]
            found[:] = sorted(found, reverse=True)[:k]
        tell(len(tile.ids))
    return best


def _same_files(reader: AnyReader) -> list[list[str]]:
    by_file: dict[str, list[str]] = defaultdict(list)
    for item in reader.summaries():
        if item.sha256 is not None:
            by_file[item.sha256].append(item.id)
    return [sorted(ids) for ids in by_file.values() if len(ids) > 1]


def _near_pairs(first: Tile, second: Tile, min_score: float, *, is_same_tile: bool) -> Iterator[tuple[float, str, str]]:
    scores = first.vectors @ second.vectors.T
    for row, column in zip(*np.nonzero(scores >= min_score), strict=True):
        if not is_same_tile or row < column:
            yield min(float(scores[row, column]), 1.0), first.ids[row], second.ids[column]
