"""What is done to the file of an index by commands: looked through, measured, copied. None of it needs the service.

Reading works beside a running service, of which it sees the last commit; what writes needs the folder for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import faiss
import numpy as np

from rankone.index.errors import IndexDamaged, IndexProblem, UnknownIndex
from rankone.index.index import Index
from rankone.index.items import Record
from rankone.index.lock import FolderLock
from rankone.index.matrix import ROUNDING
from rankone.index.reader import Reader
from rankone.index.schema import SUFFIX, Spec, spec_of
from rankone.index.store import opened
from rankone.index.vectors import Vectors, as_floats

TILE: Final = 1024
Tell = Callable[[int], None]
"""Is told how many items are done."""


@dataclass(frozen=True)
class Tile:
    """Some items of an index and their vectors (n, dim)."""

    ids: list[str]
    vectors: Vectors


def file_of(folder: Path, name: str) -> Path:
    """The file of an index.

    Raises:
        UnknownIndex: there is none.
    """
    path = folder / f"{name}{SUFFIX}"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in folder.glob(f"*{SUFFIX}"))) or "none"
        raise UnknownIndex(f"there is no index {name!r} in {folder}; there are: {known}")
    return path


def there(path: Path) -> Path:
    """The same path.

    Raises:
        IndexProblem: nothing is there.
    """
    if not path.exists():
        raise IndexProblem(f"{path} is not there")
    return path


def whole(record: Record) -> Record:
    """The same record.

    Raises:
        IndexDamaged: it is damaged.
    """
    if not record.is_whole:
        raise IndexDamaged(f"the item {record.id!r} is damaged on disk: add it again, or restore a backup")
    return record


@contextmanager
def reading(path: Path) -> Iterator[tuple[Reader, Spec]]:
    """A reader of one state of the file, whether or not a service writes to it.

    Raises:
        IndexDamaged: it is no index, or not whole.
    """
    with closing(Reader(path)) as reader, reader.snapshot():
        yield reader, spec_of(reader.about(), path)


def damaged_rows(path: Path, tell: Tell) -> list[str]:
    """The ids of all items whose checksum is not that of their content.

    Raises:
        IndexDamaged: the file is not whole; the ids that could be read say nothing of the rest.
    """
    with reading(path) as (reader, _):
        reader.check_file()
        found = []
        for _, record in reader.everything():
            if not record.is_whole:
                found.append(record.id)
            tell(1)
        return found


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
