"""The index against `faiss.knn` on the bare matrix, filtered, compact, on a GPU, and against other databases.

Real embeddings of 10,000 dimensions, repeated with noise. All searches use the index as the service does, with threads,
snapshot and metadata.

Targets: 64 queries over 20,000 rows within 1.1 times of `faiss.knn`; a filtered batch within 1.5 times of an unfiltered
one; at 50,000 rows compact 5 times as fast as exact on one query with recall@10 of 0.99; 5,000 durable adds/s in
batches; a start with 50,000 rows in 10 s. On a GPU: 64 queries over 1,000,000 float16 rows within 1.5 times of reading
the rows once.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Final

import faiss
import numpy as np
import torch

from benchmarks.compact import against_exact, recalls
from benchmarks.gallery import BATCH, QUERIES, K, filled, noisy, photographs, stored_rows
from benchmarks.peers import OURS, against_peers
from benchmarks.timing import Call, Goal, compare, console, faster, machine, print_goals, print_table
from rankone.index import Index, SearchOptions, Vectors, compiled
from rankone.index.database import SearchDevice
from rankone.index.gallery import RowTable
from rankone.index.gpu import GpuGallery
from rankone.index.search import search

ROWS: Final = 20_000
MANY: Final = 50_000
ROUNDS: Final = 7
ROWS_ON_GPU: Final = 1_000_000
BARE: Final = "faiss.knn"
ON_GPU: Final = "on the GPU"
FLOOR: Final = "reading the rows"
_COPIED_BYTES: Final = 1 << 30


def main() -> None:
    """Prints every comparison; half an hour, mostly for filling the other databases."""
    console.print(f"[bold]retrieval[/bold]: {machine()}; SQLite file in {tempfile.gettempdir()}")
    real = photographs()
    queries = next(noisy(real, QUERIES, seed=1))
    with tempfile.TemporaryDirectory() as folder:
        against_faiss(Path(folder), real, queries, ROWS, ROUNDS)
        against_peers(Path(folder), real, queries, ROWS, ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        against_exact(Path(folder), real, queries, MANY, ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        recalls(Path(folder), real, ROWS)
    against_bandwidth(real, queries, ROUNDS)


def against_faiss(folder: Path, real: Vectors, queries: Vectors, rows: int, rounds: int) -> None:
    """Prints a batch and a single query over the same rows: bare matrix, index, and index with filters."""
    index, seconds = filled(folder / "exact.sqlite", real, rows, "exact")
    console.print(f"{rows / seconds:,.0f} durable adds a second, {BATCH} a request (5,000 asked for)")
    matrix = stored_rows(real, rows)
    for asked in (queries, queries[:1]):
        timings = compare(contenders(index, matrix, asked, rows), rounds, warm_up=1)
        print_table(f"{rows:,} rows, {len(asked)} queries, exact", timings, BARE, faster)
        print_goals(timings, Goal(OURS, BARE, 1 / 1.1))
        if len(asked) > 1:
            print_goals(timings, *(Goal(name, OURS, 1 / 1.5) for name in timings if name.startswith("filtered")))
    index.close()


def contenders(index: Index, matrix: Vectors, queries: Vectors, rows: int) -> dict[str, Call]:
    """The same queries, by name."""
    threads = torch.get_num_threads()
    filters = {"all": {"n": {"$gte": 0}}, "first half": {"n": {"$lt": rows // 2}}, "every second": {"even": True}}

    def bare() -> object:
        faiss.omp_set_num_threads(threads)
        return faiss.knn(queries, matrix, K, metric=faiss.METRIC_INNER_PRODUCT)

    filtered = {
        f"filtered: {name}": partial(index.search, queries, K, where=compiled(where)) for name, where in filters.items()
    }
    return {BARE: bare, OURS: partial(index.search, queries, K), **filtered}


def against_bandwidth(real: Vectors, queries: Vectors, rounds: int) -> None:
    """Prints a batch on a GPU against reading the rows from its memory."""
    if not torch.cuda.is_available():
        console.print("search on a GPU: not measured, torch finds none (nvidia-smi tells more)")
        return
    console.print(machine("cuda"))
    timings = compare(on_device(real, queries, ROWS_ON_GPU, "cuda"), rounds, device="cuda")
    print_table(f"{ROWS_ON_GPU:,} float16 rows, {len(queries)} queries", timings, FLOOR, faster)
    print_goals(timings, Goal(ON_GPU, FLOOR, 1 / 1.5))


def on_device(real: Vectors, queries: Vectors, rows: int, device: SearchDevice) -> dict[str, Call]:
    """The search of so many rows, and a copy of half of them, which moves as many bytes as reading all."""
    gallery, table = GpuGallery(real.shape[1], np.dtype("<f2"), device), RowTable()
    for batch in noisy(real, rows, seed=0, device=device):
        gallery.write(len(table), batch)
        for number in range(len(table), len(table) + len(batch)):
            table.add(str(number), number)
    options = [SearchOptions(K)] * len(queries)
    num_copied = rows * real.shape[1]
    num_times = -(-num_copied // _COPIED_BYTES)
    here = torch.zeros(num_copied // num_times, dtype=torch.uint8, device=device)
    there = torch.zeros_like(here)

    def copy() -> None:
        for _ in range(num_times):
            there.copy_(here)

    return {FLOOR: copy, ON_GPU: lambda: search(gallery, table.ids, queries, options, table.all_rows)}
