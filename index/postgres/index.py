"""One index in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from rankone.index.backend import AnyIndex
from rankone.index.cancellation import answer
from rankone.index.change import Change, Effect
from rankone.index.errors import UnknownIndex
from rankone.index.filters import path_of
from rankone.index.gallery import Vectors
from rankone.index.map import MapView, view_of
from rankone.index.postgres import tables, writing
from rankone.index.postgres.database import Connection, Database
from rankone.index.postgres.reader import PostgresReader
from rankone.index.postgres.search import search
from rankone.index.postgres.tables import Entry
from rankone.index.query import Hits, Query, SearchOptions


@dataclass(frozen=True)
class Threads:
    """The threads of all indexes of a service; they only wait for the database."""

    searching: ThreadPoolExecutor
    writing: ThreadPoolExecutor


class PostgresIndex(AnyIndex):
    """An index as it was when it was opened; what other services do to it meanwhile is seen by every search and read."""

    backend = "postgres"
    device = None
    problem = None

    def __init__(self, database: Database, threads: Threads, entry: Entry) -> None:
        self._database, self._threads, self._entry = database, threads, entry
        self.spec, self.recall = entry.spec, entry.recall

    def __len__(self) -> int:
        return self._entry.count

    def change(self, change: Change) -> Future[Effect]:
        return self._threads.writing.submit(self._change, change)

    def ask(self, query: Query) -> Future[Hits]:
        future: Future[Hits] = Future()
        self._threads.searching.submit(answer, future, lambda: self._search(query))
        return future

    def map(self, field: str | None = None) -> MapView:
        make = f"`rankone index map URL {self._entry.name}`, where URL is the service's --index,"
        with self.reading() as reader:
            look_up = None if field is None else partial(reader.values, path_of(field))
            return view_of(reader.map(), self._entry.name, make, reader.about(), look_up)

    @contextmanager
    def reading(self) -> Iterator[PostgresReader]:
        with self._database.reading() as connection:
            yield PostgresReader(connection, self._current(connection))

    def search_deep(self, vectors: Vectors, k: int, depth: int) -> Hits:
        """The k nearest items to each vector (m, dim), of which a compact search looks at `depth` candidates."""
        with self._database.reading() as connection:
            query = Query(vectors, [SearchOptions(k)] * len(vectors))
            return search(connection, self._current(connection), query, depth=depth)

    def keep_map(self, data: bytes) -> None:
        """Keeps a map with the index."""
        with self._database.writing() as connection:
            connection.execute("UPDATE rankone.indexes SET map = %s WHERE number = %s", (data, self._entry.number))

    def keep_recall(self, recall: float, depth: int) -> None:
        """Keeps the recall that was measured, and with how many candidates."""
        with self._database.writing() as connection:
            query = "UPDATE rankone.indexes SET recall = %s, depth = %s WHERE number = %s"
            connection.execute(query, (recall, depth, self._entry.number))

    def close(self) -> None:
        """Does nothing: connections belong to all indexes."""

    def _change(self, change: Change) -> Effect:
        with self._database.writing() as connection:
            return writing.make(connection, self._entry.number, change)

    def _search(self, query: Query) -> Hits:
        with self._database.reading() as connection:
            return search(connection, self._current(connection), query)

    def _current(self, connection: Connection) -> Entry:
        found = tables.find(connection, self._entry.name)
        if found is None or found.number != self._entry.number:
            raise UnknownIndex(f"the index {self._entry.name!r} has been dropped")
        return found
