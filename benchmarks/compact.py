"""The compact index against the exact one: single queries, recall, memory, durable adds and the start."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import faiss
import numpy as np
import torch

from benchmarks.gallery import BATCH, QUERIES, K, Vectors, filled, noisy
from benchmarks.timing import Call, Goal, compare, console, faster, print_goals, print_table
from rankone.index import Hit, Index
from rankone.index.compact import CompactGallery
from rankone.index.database import Kind

_KINDS: Final[tuple[Kind, ...]] = ("exact", "compact")
_SINGLE: Final = 32
_NOISES: Final = (0.05, 0.1, 0.6, 1.0, 2.0)


def against_exact(folder: Path, real: Vectors, queries: Vectors, rows: int, rounds: int) -> None:
    """Single queries, recall, memory, durable adds and the start, exact and compact."""
    indexes: dict[str, Index] = {}
    for kind in _KINDS:
        path = folder / f"{kind}.sqlite"
        index, seconds = filled(path, real, rows, kind)
        index.close()
        started = time.perf_counter()
        indexes[kind] = Index(path, torch.get_num_threads())
        opened = time.perf_counter() - started
        console.print(f"{kind}: {rows / seconds:,.0f} durable adds a second, {BATCH} a request; start {opened:.1f} s")
    calls: dict[str, Call] = {
        kind: lambda index=index: [index.search(query[None], K) for query in queries[:_SINGLE]]  # type: ignore[misc]
        for kind, index in indexes.items()
    }
    timings = compare(calls, rounds, warm_up=1)
    print_table(f"{rows:,} rows, {_SINGLE} queries one after another", timings, "exact", faster)
    print_goals(timings, Goal("compact", "exact", 5))
    found = [index.search(queries, K) for index in indexes.values()]
    console.print(f"recall@{K} {recall(found[0], found[1]):.4f} (0.99 asked for)")
    console.print(f"memory: {4 * real.shape[1] / bytes_of(indexes['compact']):.1f} x less (15 x asked for)")
    for index in indexes.values():
        index.close()


def recalls(folder: Path, real: Vectors, rows: int) -> None:
    """Recall of compact codes where the items are nearer to each other, and where they are farther."""
    for noise in _NOISES:
        path = folder / f"{noise}.sqlite"
        index, _ = filled(path, real, rows, "compact", noise)
        matrix = np.concatenate(list(noisy(real, rows, seed=0, noise=noise)))
        matrix = matrix.astype(np.float16).astype(np.float32)
        queries = next(noisy(real, QUERIES, seed=1, noise=noise))
        _, nearest = faiss.knn(queries, matrix, K, metric=faiss.METRIC_INNER_PRODUCT)
        found = index.search(queries, K)
        share = np.mean(
            [len({int(hit.id) for hit in hits} & {*row}) / K for hits, row in zip(found, nearest, strict=True)]
        )
        console.print(f"{rows:,} rows, noise {noise:g}: recall@{K} of compact {share:.4f}")
        index.close()
        path.unlink()


def recall(exact: list[list[Hit]], found: list[list[Hit]]) -> float:
    """Of what exact search answers, the part that was found."""
    pairs = zip(exact, found, strict=True)
    return float(np.mean([len({hit.id for hit in a} & {hit.id for hit in b}) / max(len(a), 1) for a, b in pairs]))


def bytes_of(index: Index) -> float:
    """Bytes of a compact code."""
    gallery = index._searching._gallery
    assert isinstance(gallery, CompactGallery)
    return gallery._bits.shape[1] + gallery._factors.itemsize
