"""The indexes of a database by name."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Final

from rankone.index.backend import AnyIndexes
from rankone.index.errors import IndexProblem, UnknownIndex
from rankone.index.postgres import tables
from rankone.index.postgres.database import Database, looking
from rankone.index.postgres.index import PostgresIndex, Threads
from rankone.index.spec import DEFAULT, Spec, check_name

_LOOK_S: Final = 2.0
_THREADS: Final = 4


def look(url: str) -> list[tuple[str, Spec, int]]:
    """Name, spec and number of items of every index in a database; for the errors see `PostgresIndexes`."""
    with looking(url) as connection:
        return [] if connection is None else [(one.name, one.spec, one.count) for one in tables.entries(connection)]


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
        self._threads = Threads(
            ThreadPoolExecutor(_THREADS, "rankone-search"), ThreadPoolExecutor(_THREADS, "rankone-write")
        )

    def acquire(self, fingerprint: str, dim: int, *, thumbnails: bool = False) -> None:
        if DEFAULT not in self.names():
            self.create(DEFAULT, Spec(fingerprint, dim, thumbnails=thumbnails))

    def release(self, fingerprint: str) -> None:
        """Nothing is kept open for a model."""

    def names(self) -> list[str]:
        return list(self.counts())

    def spec(self, name: str) -> Spec:
        return self._find(name).spec

    def open(self, name: str, fingerprint: str | None = None) -> PostgresIndex:
        entry = self._find(name)
        if fingerprint is not None:
            entry.spec.check_model(fingerprint, name)
        return PostgresIndex(self._database, self._threads, entry)

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
        self._threads.searching.shutdown(cancel_futures=True)
        self._threads.writing.shutdown()
        self._database.close()

    def _find(self, name: str) -> tables.Entry:
        with self._database.reading() as connection:
            entry = tables.find(connection, name)
        if entry is None:
            raise UnknownIndex(f"there is no index {name!r}")
        return entry
