"""Indexes in PostgreSQL: one, and all of a database by name."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Final

import psycopg

from rankone.index.backend import AnyIndex, AnyIndexes
from rankone.index.cancellation import answered_by
from rankone.index.change import Change, Effect
from rankone.index.errors import IndexProblem, UnknownIndex
from rankone.index.filters import path_of
from rankone.index.map import MapView, view_of
from rankone.index.postgres import records, tables
from rankone.index.postgres.database import Connection, Database, check, name_of
from rankone.index.postgres.faults import of_postgres
from rankone.index.postgres.records import PostgresReader
from rankone.index.postgres.search import search
from rankone.index.postgres.tables import Entry
from rankone.index.search import Hits, Query
from rankone.index.spec import DEFAULT, Spec, check_name

_LOOK_S: Final = 2.0
_THREADS: Final = 4


def look(url: str) -> list[tuple[str, Spec, int]]:
    """Name, spec and number of items of every index in a database, in which nothing is made; see `PostgresIndexes`."""
    name = name_of(url)
    try:
        with psycopg.connect(url, connect_timeout=5, autocommit=True) as connection:
            check(connection, name)
            if connection.execute("SELECT to_regclass('rankone.indexes')").fetchone() == (None,):
                return []
            return [(entry.name, entry.spec, entry.count) for entry in tables.entries(connection)]
    except psycopg.Error as error:
        raise of_postgres(error, name) from error


class PostgresIndex(AnyIndex):
    """An index as it was when it was opened; what other services do to it meanwhile is seen by every search and read."""

    backend = "postgres"
    device = None
    problem = None

    def __init__(
        self, database: Database, searching: ThreadPoolExecutor, writing: ThreadPoolExecutor, entry: Entry
    ) -> None:
        self._database, self._searching, self._writing, self._entry = database, searching, writing, entry
        self.spec, self.recall = entry.spec, entry.recall

    def __len__(self) -> int:
        return self._entry.count

    def change(self, change: Change) -> Future[Effect]:
        return self._writing.submit(self._change, change)

    def submit_search(self, query: Query) -> Future[Hits]:
        return answered_by(self._searching, lambda: self.hits(query))

    def map(self, field: str | None = None) -> MapView:
        make = f"`rankone index map URL {self._entry.name}`, where URL is the service's --index,"
        with self.reading() as reader:
            look_up = None if field is None else partial(reader.values, path_of(field))
            return view_of(reader.map(), self._entry.name, make, reader.about(), look_up)

    @contextmanager
    def reading(self) -> Iterator[PostgresReader]:
        with self._database.reading() as connection:
            yield PostgresReader(connection, self._current(connection))

    def hits(self, query: Query, depth: int | None = None) -> Hits:
        """What `ask` answers, of which a compact search looks at `depth` candidates."""
        with self._database.reading() as connection:
            return search(connection, self._current(connection), query, depth)

    def keep_map(self, data: bytes) -> None:
        """Keeps a map with the index."""
        with self._database.writing() as connection:
            connection.execute("UPDATE rankone.indexes SET map = %s WHERE number = %s", (data, self._entry.number))

    def keep_recall(self, recall: float, depth: int) -> None:
        """Keeps the recall that was measured, and with how many candidates."""
        with self._database.writing() as connection:
            query = "UPDATE rankone.indexes SET recall = %s, depth = %s WHERE number = %s"
            connection.execute(query, (recall, depth, self._entry.number))

    def _change(self, change: Change) -> Effect:
        with self._database.writing() as connection:
            return records.make(connection, self._entry.number, change)

    def _current(self, connection: Connection) -> Entry:
        found = tables.find(connection, self._entry.name)
        if found is None or found.number != self._entry.number:
            raise UnknownIndex(f"the index {self._entry.name!r} has been dropped")
        return found


class PostgresIndexes(AnyIndexes):
    """Every index in a database, which any number of services may use at once.

    `timeout_s` is the longest that a statement may take.

    Raises:
        IndexUnavailable: the database cannot be reached.
        IndexProblem: it is too old, lacks pgvector, or is set up such that a commit is not durable.
    """

    backend = "postgres"

    def __init__(self, url: str, timeout_s: float) -> None:
        self._database = Database(url, timeout_s)
        self._known = [DEFAULT]
        self._searching = ThreadPoolExecutor(_THREADS, "rankone-search")  # they only wait for the database
        self._writing = ThreadPoolExecutor(_THREADS, "rankone-write")

    def acquire(self, fingerprint: str, dim: int, *, thumbnails: bool = False) -> None:
        if DEFAULT not in self.names():
            self.create(DEFAULT, Spec(fingerprint, dim, thumbnails=thumbnails))

    def names(self) -> list[str]:
        return list(self.counts())

    def open(self, name: str, fingerprint: str | None = None) -> PostgresIndex:
        with self._database.reading() as connection:
            entry = tables.find(connection, name)
        if entry is None:
            raise UnknownIndex(f"there is no index {name!r}")
        if fingerprint is not None:
            entry.spec.check_model(fingerprint, name)
        return PostgresIndex(self._database, self._searching, self._writing, entry)

    def counts(self) -> dict[str, int]:
        with self._database.reading(wait_s=_LOOK_S) as connection:
            return {entry.name: entry.count for entry in tables.entries(connection)}

    def problems(self) -> dict[str, str]:
        try:
            with self._database.reading(wait_s=_LOOK_S) as connection:
                self._known = [entry.name for entry in tables.entries(connection)]
        except IndexProblem as problem:
            return dict.fromkeys(self._known, str(problem))
        return {}

    def create(self, name: str, spec: Spec) -> bool:
        check_name(name)
        with self._database.writing() as connection:
            return tables.create(connection, name, spec)

    def drop(self, name: str) -> None:
        with self._database.writing() as connection:
            if not tables.drop(connection, name):
                raise UnknownIndex(f"there is no index {name!r}")

    def close(self) -> None:
        self._searching.shutdown(cancel_futures=True)
        self._writing.shutdown()
        self._database.close()
