"""Which images are in an index twice: the same file, or one that looks almost the same."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from rankone.index.offline import Tell, Tile, reading, tiles
from rankone.index.reader import Reader

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
