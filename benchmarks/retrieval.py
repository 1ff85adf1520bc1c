"""The index against `faiss.knn` on the bare matrix, against itself with filters and compact codes, and against other databases.

Real embeddings of 10,000 dimensions, repeated with noise. Everything goes through the index as the service uses it: threads,
snapshot, metadata and all. A product in bfloat16 over a half-size copy, followed by a proof, is a lead that is not followed: it
takes a CPU with bfloat16 units.

Targets: 64 queries over 20,000 rows within 1.1 times of `faiss.knn`; a filtered batch within 1.5 times of an unfiltered one; at
50,000 rows compact 5 times as fast as exact on one query, recall@10 at least 0.99, a fifteenth of its memory; 5,000 durable
adds a second in batches; a start with 50,000 rows in 10 s. Where there is a GPU: 64 queries over 1,000,000 float16 rows on it
within 1.5 times of what reading them once takes.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

import faiss
import numpy as np
import torch

from benchmarks.compact import against_exact, recalls
from benchmarks.gallery import BATCH, QUERIES, K, Vectors, filled, noisy, photographs
from benchmarks.peers import PEERS, Missing
from benchmarks.timing import Call, Goal, compare, console, faster, machine, print_goals, print_table
from rankone.index import Index, compiled
from rankone.index.database import SearchDevice
from rankone.index.gallery import RowTable
from rankone.index.gpu import GpuGallery
from rankone.index.search import SearchOptions, search

ROWS: Final = 20_000
MANY: Final = 50_000
ROWS_ON_GPU: Final = 1_000_000
BARE: Final = "faiss.knn"
OURS: Final = "the index"
ON_GPU: Final = "on the GPU"
FLOOR: Final = "reading the rows"
_COPIED_BYTES: Final = 1 << 30


def main() -> None:
    """Prints every comparison at full size; half an hour, most of it for filling the peers."""
    run(ROWS, MANY, rounds=7)


def run(rows: int, many: int, rounds: int) -> None:
    """Prints every comparison, on `rows` rows and on `many` where compact codes are for."""
    console.print(f"[bold]retrieval[/bold]: {machine()}; SQLite file in {tempfile.gettempdir()}")
    real = photographs()
    queries = next(noisy(real, QUERIES, seed=1))
    with tempfile.TemporaryDirectory() as folder:
        against_faiss(Path(folder), real, queries, rows, rounds)
        against_peers(Path(folder), real, queries, rows, rounds)
    with tempfile.TemporaryDirectory() as folder:
        against_exact(Path(folder), real, queries, many, rounds)
    with tempfile.TemporaryDirectory() as folder:
        recalls(Path(folder), real, rows)
    against_bandwidth(real, queries, rounds)


def against_faiss(folder: Path, real: Vectors, queries: Vectors, rows: int, rounds: int) -> None:
    """A batch and a single query over the same rows, as a bare matrix and as an index, with and without filters."""
    index, seconds = filled(folder / "exact.sqlite", real, rows, "exact")
    console.print(f"{rows / seconds:,.0f} durable adds a second, {BATCH} a request (5,000 asked for)")
    matrix = np.concatenate(list(noisy(real, rows, seed=0)))
    matrix = matrix.astype(np.float16).astype(np.float32)  # as they are kept
    for asked in (queries, queries[:1]):
        timings = compare(contenders(index, matrix, asked, rows), rounds, warm_up=1)
        print_table(f"{rows:,} rows, {len(asked)} queries, exact", timings, BARE, faster)
        print_goals(timings, Goal(OURS, BARE, 1 / 1.1))
        if len(asked) > 1:
            print_goals(timings, *(Goal(name, OURS, 1 / 1.5) for name in timings if name.startswith("filtered")))
    index.close()


def contenders(index: Index, matrix: Vectors, queries: Vectors, rows: int) -> dict[str, Call]:
    """The same queries, put in each way."""
    threads = torch.get_num_threads()
    half, everything = compiled({"n": {"$lt": rows // 2}}), compiled({"n": {"$gte": 0}})
    scattered = compiled({"even": True})

    def bare() -> object:
        faiss.omp_set_num_threads(threads)
        return faiss.knn(queries, matrix, K, metric=faiss.METRIC_INNER_PRODUCT)

    return {
        BARE: bare,
        OURS: lambda: index.search(queries, K),
        "filtered: all": lambda: index.search(queries, K, where=everything),
        "filtered: first half": lambda: index.search(queries, K, where=half),
        "filtered: every second": lambda: index.search(queries, K, where=scattered),
    }


def against_bandwidth(real: Vectors, queries: Vectors, rounds: int) -> None:
    """A batch on a GPU against what its memory allows; a sentence where there is none."""
    if not torch.cuda.is_available():
        console.print("search on a GPU: not measured, torch finds none (nvidia-smi tells more)")
        return
    console.print(machine("cuda"))
    timings = compare(on_device(real, queries, ROWS_ON_GPU, "cuda"), rounds, device="cuda")
    print_table(f"{ROWS_ON_GPU:,} float16 rows, {len(queries)} queries", timings, FLOOR, faster)
    print_goals(timings, Goal(ON_GPU, FLOOR, 1 / 1.5))


def on_device(real: Vectors, queries: Vectors, rows: int, device: SearchDevice) -> dict[str, Call]:
    """The search of so many rows there, and a copy of half of them, which moves as many bytes as reading all."""
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


def against_peers(folder: Path, real: Vectors, queries: Vectors, rows: int, rounds: int) -> None:
    """Other databases on the same vectors, searched exactly; those that are not installed are named."""
    index = Index(folder / "exact.sqlite", torch.get_num_threads())
    truth = index.search(queries, K)
    calls: dict[str, Call] = {OURS: lambda: index.search(queries, K)}
    singles: dict[str, Call] = {OURS: lambda: index.search(queries[:1], K)}
    more: dict[str, dict[str, str]] = {"recall": {OURS: "1.000"}, "adds/s": {}}
    for name, make_peer in PEERS.items():
        try:
            peer = make_peer(folder / name, real.shape[1])
        except Missing as missing:
            console.print(f"{name}: {missing}")
            continue
        seconds = 0.0
        for number, batch in enumerate(noisy(real, rows, seed=0)):
            ids = [str(number * BATCH + place) for place in range(len(batch))]
            started = time.perf_counter()
            peer.add(ids, batch)
            seconds += time.perf_counter() - started
        more["adds/s"][name] = f"{rows / seconds:,.0f}"
        answers = peer.search(queries, K)
        shares = [len({hit.id for hit in hits} & set(ids)) / K for hits, ids in zip(truth, answers, strict=True)]
        more["recall"][name] = f"{np.mean(shares):.3f}"
        calls[name] = lambda peer=peer: peer.search(queries, K)  # type: ignore[misc]
        singles[name] = lambda peer=peer: peer.search(queries[:1], K)  # type: ignore[misc]
    for title, group in ((f"{len(queries)} queries", calls), ("one query", singles)):
        timings = compare(group, rounds, warm_up=1)
        print_table(f"{rows:,} rows, {title}, against others", timings, OURS, faster, more)
        print_goals(timings, *(Goal(OURS, name, 1) for name in timings if name != OURS))
    index.close()
    shutil.rmtree(folder, ignore_errors=True)
