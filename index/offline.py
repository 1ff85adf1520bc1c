"""Which images are in an index twice: the same file, or one that looks almost the same."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import faiss
import numpy as np

from rankone.index.backup import Tell, reading, whole
from rankone.index.database import FolderLock, Spec
from rankone.index.exact import ROUNDING
from rankone.index.gallery import Vectors, as_floats
from rankone.index.index import Index
from rankone.index.items import Reader
from rankone.index.writer import opened

TILE: Final = 1024


@dataclass(frozen=True)
class Tile:
    """Some items of an index and their vectors (n, dim)."""

    ids: list[str]
    vectors: Vectors


def tiles(reader: Reader, spec: Spec, tell: Tell, height: int = TILE) -> Iterator[Tile]:
    """All items, some at a time, in order.

    Raises:
        IndexDamaged: one of them is damaged.
    """
    ids: list[str] = []
    rows: list[bytes] = []
    for _, record in reader.everything():
        ids.append(record.id)
        rows.append(whole(record).vector)
        if len(ids) == height:
            yield _tile(ids, rows, spec)
            tell(len(ids))
            ids, rows = [], []
    if ids:
        yield _tile(ids, rows, spec)
        tell(len(ids))


def measure_recall(path: Path, num_queries: int, k: int, tell: Tell) -> float:
    """Recall@k of the compact search against the exact one, of items drawn at random, themselves not counted; kept in the file.

    The folder of the index must not be in use.

    Raises:
        IndexProblem: it is.
    """
    lock = FolderLock(path.parent)
    try:
        with reading(path) as (reader, spec):
            queries = _drawn(reader, spec, num_queries)
            exact = _exact(reader, spec, queries, k + 1, tell)
        index = Index(path)
        try:
            hits = index.search(queries.vectors, k + 1)
        finally:
            index.close()
        found = [[hit.score for hit in row if hit.id != own][:k] for row, own in zip(hits, queries.ids, strict=True)]
        wanted = [
            [score for score, item_id in row if item_id != own][:k] for row, own in zip(exact, queries.ids, strict=True)
        ]
        recall = float(np.mean([_share(a, b) for a, b in zip(found, wanted, strict=True) if b] or [1.0]))
        with opened(path) as store:
            store.note(recall=recall)
        return recall
    finally:
        lock.release()


def _share(found: list[float], wanted: list[float]) -> float:
    """The part of what was found that is as near as the farthest wanted: of items that are equally near, any will do."""
    return sum(score >= wanted[-1] - ROUNDING for score in found) / len(wanted)


def _drawn(reader: Reader, spec: Spec, count: int) -> Tile:
    """Items spread over the whole index."""
    total = reader.count()
    places = set(np.random.default_rng(0).choice(total, min(count, total), replace=False).tolist()) if total else set()
    records = [record for place, (_, record) in enumerate(reader.everything()) if place in places]
    return _tile([record.id for record in records], [record.vector for record in records], spec)


def _exact(reader: Reader, spec: Spec, queries: Tile, k: int, tell: Tell) -> list[list[tuple[float, str]]]:
    """Scores and ids of the k nearest to each query, by comparing it with every vector on disk."""
    best: list[list[tuple[float, str]]] = [[] for _ in queries.ids]
    for tile in tiles(reader, spec, tell):
        scores, rows = faiss.knn(
            queries.vectors, tile.vectors, min(k, len(tile.ids)), metric=faiss.METRIC_INNER_PRODUCT
        )
        for found, row_scores, row in zip(best, scores.tolist(), rows.tolist(), strict=True):
            found += [(score, tile.ids[place]) for score, place in zip(row_scores, row, strict=True)]
            found[:] = sorted(found, reverse=True)[:k]
    return best


def _tile(ids: list[str], rows: list[bytes], spec: Spec) -> Tile:
    vectors = np.frombuffer(b"".join(rows), spec.stored).reshape(len(ids), spec.dim)
    return Tile(ids, as_floats(vectors))


_HEIGHT: Final = 2048
"""Items a tile; two of them are in memory at once."""


@dataclass(frozen=True)
class Duplicates:
    """Groups of ids with the same file, and pairs of others with their cosine, highest first.

    `left_out` pairs were found and not kept.
    """

    same: list[list[str]]
    near: list[tuple[float, str, str]]
    left_out: int


def find_duplicates(path: Path, min_score: float, limit: int, tell: Tell) -> Duplicates:
    """Compares every item with every other: by sha256 where there is one, then exactly by cosine, from `min_score` on.

    Of the pairs that are near, the best `limit` are kept. `tell` is told how many items were compared with all.

    Raises:
        IndexDamaged: the file, or an item of it.
    """
    with reading(path) as (reader, spec):
        same = _same_files(reader)
        group = {item_id: number for number, ids in enumerate(same) for item_id in ids}
        best: list[tuple[float, str, str]] = []
        num_found = 0
        for number, first in enumerate(tiles(reader, spec, tell, _HEIGHT)):
            for later, second in enumerate(tiles(reader, spec, lambda _: None, _HEIGHT)):
                if later < number:
                    continue
                for pair in _pairs(first, second, min_score, is_same_tile=later == number):
                    if group.get(pair[1], -1) != group.get(pair[2], -2):
                        num_found += 1
                        (heapq.heappush if len(best) < limit else heapq.heappushpop)(best, pair)
    near = sorted(best, key=lambda pair: (-pair[0], pair[1], pair[2]))
    return Duplicates(same, near, num_found - len(near))


def _same_files(reader: Reader) -> list[list[str]]:
    by_file: dict[str, list[str]] = defaultdict(list)
    for item_id, sha256 in reader.files():
        by_file[sha256].append(item_id)
    return [sorted(ids) for ids in by_file.values() if len(ids) > 1]


def _pairs(first: Tile, second: Tile, min_score: float, *, is_same_tile: bool) -> Iterator[tuple[float, str, str]]:
    scores = first.vectors @ second.vectors.T
    for row, column in zip(*np.nonzero(scores >= min_score), strict=True):
        if not is_same_tile or row < column:
            yield min(float(scores[row, column]), 1.0), first.ids[row], second.ids[column]
