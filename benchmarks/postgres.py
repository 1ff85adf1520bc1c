"""Indexes in PostgreSQL beside those in files: adds, single queries, batches, recall and room, in one run.

`RANKONE_INDEX` names the database, in which indexes called `bench-…` are made and dropped. Recall is measured as
`rankone index check` measures it, which also chooses how many candidates a compact search looks at.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import psycopg
import torch

from benchmarks.gallery import BATCH, QUERIES, K, fill, noisy, one_by_one, photographs, shortened
from benchmarks.timing import console, machine, print_comparison
from rankone.index import AnyIndex, Index, Spec, Vectors
from rankone.index.database import create_file
from rankone.index.offline import measure_recall
from rankone.index.postgres import PostgresIndexes
from rankone.index.source import InPostgres, Source, is_postgres
from rankone.index.spec import Kind
from rankone.model.errors import RankoneError

ROWS: Final = 20_000
ROUNDS: Final = 7
_SINGLE: Final = 16
_LOCAL: Final = "in a file"
_POSTGRES: Final = "in PostgreSQL"
_MODEL: Final = "0" * 64
_FILE: Final = "bench.sqlite"


class DatabaseMissing(RankoneError, ValueError):
    """`RANKONE_INDEX` does not name a database."""


@dataclass(frozen=True)
class _Opened:
    """An index, and how to open it again."""

    index: AnyIndex
    source: Source


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
    spec = Spec(_MODEL, real.shape[1], kind=kind)
    queries = next(noisy(real, QUERIES, seed=1))
    console.print(f"\n{kind}, {rows:,} rows of {spec.dim:,} numbers")
    with (
        tempfile.TemporaryDirectory() as folder,
        _in_file(Path(folder), spec) as here,
        _in_postgres(url, spec) as there,
    ):
        places = {_LOCAL: here, _POSTGRES: there}
        for name, opened in places.items():
            seconds = fill(opened.index, real, rows)
            console.print(f"{name}: {rows / seconds:,.0f} durable adds a second, {BATCH} a request")
        if kind == "compact":
            here.index.close()  # what is measured must not be in use
            for name, opened in places.items():
                recall = measure_recall(opened.source, QUERIES, K, lambda _: None)
                console.print(f"{name}: recall@{K} {recall:.4f}")
            places[_LOCAL] = _Opened(Index(Path(folder) / _FILE, torch.get_num_threads()), here.source)
        singly = {name: partial(one_by_one, opened.index, queries[:_SINGLE]) for name, opened in places.items()}
        print_comparison(f"{_SINGLE} queries one after another", singly, _LOCAL, rounds)
        together = {name: partial(opened.index.search, queries, K) for name, opened in places.items()}
        print_comparison(f"{QUERIES} queries in one request", together, _LOCAL, rounds)
        console.print(f"{_LOCAL}: {_bytes(here.source) / rows:,.0f} bytes a row on disk")
        console.print(f"{_POSTGRES}: {_bytes(there.source) / rows:,.0f} bytes a row on disk, indexes of it included")
        places[_LOCAL].index.close()


@contextmanager
def _in_file(folder: Path, spec: Spec) -> Iterator[_Opened]:
    path = folder / _FILE
    create_file(path, spec)
    yield _Opened(Index(path, torch.get_num_threads()), path)


@contextmanager
def _in_postgres(url: str, spec: Spec) -> Iterator[_Opened]:
    name = f"bench-{spec.kind}-{spec.dim}"
    indexes = PostgresIndexes(url, 600)
    try:
        if name in indexes.names():  # of a run that was broken off
            indexes.drop(name)
        indexes.create(name, spec)
        yield _Opened(indexes.open(name), InPostgres(url, name))
        indexes.drop(name)
    finally:
        indexes.close()


def _bytes(source: Source) -> int:
    if isinstance(source, Path):
        return source.stat().st_size
    assert isinstance(source, InPostgres)
    query = "SELECT pg_total_relation_size('rankone.items_' || number) FROM rankone.indexes WHERE name = %s"
    with psycopg.connect(source.url) as connection:
        (size,) = connection.execute(query, (source.stem,)).fetchone() or (0,)
    return int(size)
