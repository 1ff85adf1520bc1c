"""The compact index against the exact one: single queries, batches, recall, memory, durable adds and the start."""

from __future__ import annotations

import os
import time
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Final

import faiss
import numpy as np
import torch

from benchmarks.gallery import BATCH, QUERIES, K, filled, ids_of, noisy, one_by_one, recall, stored_rows
from benchmarks.timing import Goal, console, print_comparison
from rankone.index import Index, Vectors
from rankone.index.compact import CompactGallery
from rankone.index.gallery import RowTable
from rankone.index.spec import Kind

_KINDS: Final[tuple[Kind, ...]] = ("exact", "compact")
_SINGLE: Final = 32
_NOISES: Final = (0.05, 0.1, 0.6, 1.0, 2.0)


def against_exact(folder: Path, real: Vectors, queries: Vectors, rows: int, rounds: int) -> None:
    """Prints single queries, batches, recall, memory, durable adds and the start, exact and compact."""
    indexes: dict[str, Index] = {}
    for kind in _KINDS:
        path = folder / f"{kind}.sqlite"
        index, seconds = filled(path, real, rows, kind)
        console.print(f"{kind}: {rows / seconds:,.0f} durable adds a second, {BATCH} a request (2,000 asked for)")
        for state in ("not in the page cache", "in the page cache"):
            index.close()
            if state != "in the page cache":
                forget(path)
            started = time.perf_counter()
            indexes[kind] = index = Index(path, torch.get_num_threads())
            console.print(f"{kind}: start, file {state}: {time.perf_counter() - started:.1f} s (5 asked for)")
    singly = {kind: partial(one_by_one, index, queries[:_SINGLE]) for kind, index in indexes.items()}
    title = f"{rows:,} rows, {_SINGLE} queries one after another"
    timings = print_comparison(title, singly, "exact", rounds, Goal("compact", "exact", 5))
    console.print(f"compact: {1e3 * timings['compact'].median / _SINGLE:.1f} ms a query (5 asked for)")
    together = {kind: partial(index.search, queries, K) for kind, index in indexes.items()}
    title = f"{rows:,} rows, {len(queries)} queries together"
    print_comparison(title, together, "exact", rounds, Goal("compact", "exact", 1))
    exact, compact = (ids_of(index.search(queries, K)) for index in indexes.values())
    console.print(f"recall@{K} {recall(exact, compact):.4f} (0.99 asked for)")
    console.print(f"memory: {4 * real.shape[1] / bytes_a_code(real.shape[1]):.1f} x less (15 x asked for)")
    for index in indexes.values():
        index.close()


def forget(path: Path) -> None:
    """Has the system forget what it holds of a file in memory."""
    with path.open("rb") as file:
        os.fdatasync(file)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def recalls(folder: Path, real: Vectors, rows: int) -> None:
    """Prints the recall of compact codes for items that are closer together or further apart."""
    for noise in _NOISES:
        index, _ = filled(folder / f"{noise}.sqlite", real, rows, "compact", noise)
        queries = next(noisy(real, QUERIES, seed=1, noise=noise))
        _, nearest = faiss.knn(queries, stored_rows(real, rows, noise), K, metric=faiss.METRIC_INNER_PRODUCT)
        share = recall([[str(row) for row in rows] for rows in nearest], ids_of(index.search(queries, K)))
        console.print(f"{rows:,} rows, noise {noise:g}: recall@{K} of compact {share:.4f}")
        index.close()
        (folder / f"{noise}.sqlite").unlink()


def bytes_a_code(dim: int, rows: int = 4096) -> float:
    """The memory of a compact gallery by row."""
    tracemalloc.start()
    gallery = CompactGallery(dim, RowTable(), lambda _: [], np.dtype("<f2"))
    gallery.fit(rows)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held / gallery.stable_row_counts[1]
