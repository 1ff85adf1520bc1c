"""The index against `faiss.knn` on the bare matrix, filtered, compact, on a GPU, and against other databases.

Real embeddings of 10,000 dimensions, repeated with noise. All searches use the index as the service does, with threads,
snapshot and metadata.

Targets: 64 queries over 20,000 rows within 1.1 times of `faiss.knn`; a filtered batch within 1.5 times of an unfiltered
one; 5,000 durable adds/s in batches. At 50,000 rows, compact: 5 ms a query and a fifth of exact, recall@10 of 0.99,
batches no slower than exact; a start in 5 s from a cold disk. 1,000,000 rows of 128 numbers, exact: 20 ms a query and
1.5 GB. On a GPU: 64 queries over 1,000,000 float16 rows within 1.5 times of reading the rows once.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Final

import faiss
import numpy as np
import torch

from benchmarks.compact import against_exact, recalls
from benchmarks.gallery import BATCH, QUERIES, SHORT, K, filled, noisy, photographs, stored_rows
from benchmarks.peers import OURS, against_peers
from benchmarks.timing import Call, Goal, compare, console, faster, machine, print_comparison, print_goals, print_table
from rankone.index import Index, SearchOptions, Vectors, compiled
from rankone.index.gallery import RowTable
from rankone.index.gpu import GpuGallery
from rankone.index.search import search
from rankone.index.spec import SearchDevice

ROWS: Final = 20_000
MANY: Final = 50_000
MANY_SHORT: Final = 1_000_000
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
    with tempfile.TemporaryDirectory() as folder:
        short_vectors(Path(folder), MANY_SHORT, SHORT, ROUNDS)
    against_bandwidth(real, queries, ROUNDS)


def short_vectors(folder: Path, rows: int, dim: int, rounds: int) -> None:
    """Prints queries, the start and memory of an exact index of many short vectors, around 168 directions."""
    drawn = np.random.default_rng(0).standard_normal((168, dim)).astype(np.float32)
    real = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    index, seconds = filled(folder / "short.sqlite", real, rows, "exact")
    index.close()
    console.print(f"{rows:,} x {dim}: {rows / seconds:,.0f} durable adds a second, {BATCH} a request")
    before, started = resident_bytes(), time.perf_counter()
    index = Index(folder / "short.sqlite", torch.get_num_threads())
    console.print(f"{rows:,} x {dim}: start {time.perf_counter() - started:.1f} s")
    queries = next(noisy(real, QUERIES, seed=1))
    calls = {f"{n} queries": partial(index.search, queries[:n], K) for n in (1, QUERIES)}
    print_comparison(f"{rows:,} x {dim}, exact", calls, "1 queries", rounds)
    console.print(f"memory {(resident_bytes() - before) / 1e9:.2f} GB (1.5 asked for; a query in 20 ms)")
    index.close()


def resident_bytes() -> int:
    """Memory of this process that belongs to no file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def against_faiss(folder: Path, real: Vectors, queries: Vectors, rows: int, rounds: int) -> None:
    """Prints a batch and a single query over the same rows: bare matrix, index, and index with filters."""
    index, seconds = filled(folder / "exact.sqlite", real, rows, "exact")
    console.print(f"{rows / seconds:,.0f} durable adds a second, {BATCH} a request (5,000 asked for)")
    matrix = stored_rows(real, rows)
    for asked in (queries, queries[:1]):
        title, calls = f"{rows:,} rows, {len(asked)} queries, exact", contenders(index, matrix, asked, rows)
        timings = print_comparison(title, calls, BARE, rounds, Goal(OURS, BARE, 1 / 1.1))
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
