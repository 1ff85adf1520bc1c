"""Indexes in PostgreSQL beside those in files: adds, single queries, batches, recall and room, in one run.

`RANKONE_INDEX` names the database, in which indexes called `bench-…` are made and dropped. Recall is measured as
`rankone index check` measures it, which also chooses how many candidates a compact search looks at.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import psycopg
import torch

from benchmarks.gallery import BATCH, MODEL, QUERIES, K, fill, filled, noisy, one_by_one, photographs, shortened
from benchmarks.timing import console, machine, print_comparison
from rankone.index import AnyIndex, Index, Spec, Vectors
from rankone.index.offline import measure_recall
from rankone.index.postgres import PostgresIndexes
from rankone.index.source import Remote, is_postgres
from rankone.index.spec import Kind
from rankone.model.errors import RankoneError

ROWS: Final = 20_000
ROUNDS: Final = 7
_SINGLE: Final = 16
_LOCAL: Final = "in a file"
_POSTGRES: Final = "in PostgreSQL"


class DatabaseMissing(RankoneError, ValueError):
    """`RANKONE_INDEX` does not name a database."""


def main() -> None:
    """Prints a table for each kind of index; ten minutes."""
    url = os.environ.get("RANKONE_INDEX", "")
    if not is_postgres(url):
        raise DatabaseMissing(
            "set RANKONE_INDEX to the address of a database that may be filled: postgresql://user@host/name"
        )
    with psycopg.connect(url) as connection:
        version = connection.info.parameter_status("server_version")
    console.print(f"[bold]postgres[/bold]: {machine()}; PostgreSQL {version}, its defaults, on this machine")
    long = photographs()
    for real in (long, shortened(long)):
        against_files(url, real, "exact", ROWS, ROUNDS)
        against_files(url, real, "compact", ROWS, ROUNDS)


def against_files(url: str, real: Vectors, kind: Kind, rows: int, rounds: int) -> None:
    """Prints one kind of index in both places, with the same rows and queries."""
    queries = next(noisy(real, QUERIES, seed=1))
    console.print(f"\n{kind}, {rows:,} rows of {real.shape[1]:,} numbers")
    name, spec = f"bench-{kind}-{real.shape[1]}", Spec(MODEL, real.shape[1], kind=kind)
    with tempfile.TemporaryDirectory() as folder, _in_postgres(url, name, spec) as there:
        file, table = Path(folder, "bench.sqlite"), Remote(url, name)
        made, here_s = filled(file, real, rows, kind)
        made.close()  # what is measured must not be in use
        for place, seconds in ((_LOCAL, here_s), (_POSTGRES, fill(there, real, rows))):
            console.print(f"{place}: {rows / seconds:,.0f} durable adds a second, {BATCH} a request")
        recalled = ((_LOCAL, file), (_POSTGRES, table)) if kind == "compact" else ()
        for place, source in recalled:
            console.print(f"{place}: recall@{K} {measure_recall(source, QUERIES, K, lambda _: None):.4f}")
        with closing(Index(file, torch.get_num_threads())) as here:
            places: dict[str, AnyIndex] = {_LOCAL: here, _POSTGRES: there}
            singly = {place: partial(one_by_one, index, queries[:_SINGLE]) for place, index in places.items()}
            print_comparison(f"{_SINGLE} queries one after another", singly, _LOCAL, rounds)
            together = {place: partial(index.search, queries, K) for place, index in places.items()}
            print_comparison(f"{QUERIES} queries in one request", together, _LOCAL, rounds)
        console.print(f"{_LOCAL}: {file.stat().st_size / rows:,.0f} bytes a row on disk")
        console.print(f"{_POSTGRES}: {_bytes(table) / rows:,.0f} bytes a row on disk, indexes of it included")


@contextmanager
def _in_postgres(url: str, name: str, spec: Spec) -> Iterator[AnyIndex]:
    with closing(PostgresIndexes(url, 600)) as indexes:
        if name in indexes.names():  # of a run that was broken off
            indexes.drop(name)
        indexes.create(name, spec)
        yield indexes.open(name)
        indexes.drop(name)


def _bytes(source: Remote) -> int:
    query = "SELECT pg_total_relation_size('rankone.items_' || number) FROM rankone.indexes WHERE name = %s"
    with psycopg.connect(source.place) as connection:
        (size,) = connection.execute(query, (source.stem,)).fetchone() or (0,)
    return int(size)
