"""Connections to PostgreSQL: checked, pooled, and interrupted when their read is cancelled."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from pgvector.psycopg import register_vector
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import ConnectionPool

from rankone.index.cancellation import cancelled_by
from rankone.index.errors import IndexProblem
from rankone.index.postgres.faults import of_postgres

Connection = psycopg.Connection[tuple[Any, ...]]

_CONNECTIONS: Final = 12
"""Of one service at most."""
_WAIT_S: Final = 5.0
"""For a connection, when all are in use or the server is away."""
_PAUSE_S: Final = 0.02
_LEAST_VERSION: Final = 140000
_DURABLE: Final = {"synchronous_commit": ("on", "remote_apply"), "fsync": ("on",), "full_page_writes": ("on",)}
"""What is acknowledged is on disk only with these settings: https://www.postgresql.org/docs/current/wal-reliability.html."""


class Database:
    """A pool of connections. A thread keeps one while it reads or writes.

    `timeout_s` is the longest that a statement may take. What a `cancellable` block no longer wants is interrupted.

    Raises:
        IndexUnavailable: the database cannot be reached.
        IndexProblem: it is too old, lacks pgvector, or is set up such that a commit is not durable.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self.name = name_of(url)
        self._timeout_s = timeout_s
        try:
            with psycopg.connect(url, connect_timeout=5, autocommit=True) as first:
                check(first, self.name)
                _install(first, self.name)
        except psycopg.Error as error:
            raise of_postgres(error, self.name) from error
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            url,
            min_size=1,
            max_size=_CONNECTIONS,
            kwargs={"autocommit": True},
            configure=self._configure,
            check=ConnectionPool.check_connection,
            reconnect_timeout=2.0,  # after that, the next request tries again; otherwise the pauses would grow to minutes
            name="rankone",
            open=True,
        )

    @contextmanager
    def reading(self, wait_s: float = _WAIT_S) -> Iterator[Connection]:
        """A connection on which every read sees the same state of the database. `wait_s` is how long it may take to get one."""
        with self._connection(wait_s) as connection, connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction, which is committed and on disk once the block has ended without an error."""
        with self._connection() as connection, connection.transaction():
            yield connection

    def close(self) -> None:
        """Closes all connections."""
        self._pool.close()

    @contextmanager
    def _connection(self, wait_s: float = _WAIT_S) -> Iterator[Connection]:
        try:
            with self._pool.connection(wait_s) as connection, _interrupted_if_cancelled(connection):
                yield connection
        except psycopg.Error as error:
            raise of_postgres(error, self.name) from error

    def _configure(self, connection: Connection) -> None:
        """Of a new connection. A server that was replaced by one that is set up differently is not used."""
        check(connection, self.name)
        register_vector(connection)
        connection.execute(f"SET statement_timeout = {int(1000 * self._timeout_s)}")
        connection.execute("SET client_connection_check_interval = 1000")  # a query whose service has died ends
        connection.execute("SET jit = off")  # it takes longer than most of these queries


@contextmanager
def _interrupted_if_cancelled(connection: Connection) -> Iterator[None]:
    """Interrupts what runs on the connection within the block, once the `cancellable` block around it is cancelled."""
    if (is_cancelled := cancelled_by()) is None:
        yield
        return
    is_over, was_interrupted = threading.Event(), threading.Event()

    def watch() -> None:
        while not is_over.wait(_PAUSE_S):
            if is_cancelled():
                was_interrupted.set()
                connection.cancel_safe(timeout=5)
                return

    watching = threading.Thread(target=watch, name="rankone-postgres-watch", daemon=True)
    watching.start()
    try:
        yield
    finally:
        is_over.set()
        watching.join()
        if was_interrupted.is_set():  # the signal might reach the next statement on it
            connection.close()


def name_of(url: str) -> str:
    """Which database a URL names, without its password.

    Raises:
        IndexProblem: it cannot be read.
    """
    try:
        parts = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise IndexProblem(f"the address of the database cannot be read: {str(error).strip()}") from error
    return f"{parts.get('dbname') or 'postgres'} on {parts.get('host') or 'this machine'}"


def check(connection: Connection, name: str) -> None:
    """Raises IndexProblem if the server is too old, or set up such that a commit is not durable."""
    if connection.info.server_version < _LEAST_VERSION:
        raise IndexProblem(
            f"the database {name} is PostgreSQL {connection.info.server_version // 10000}; 14 is the oldest"
        )
    for setting, good in _DURABLE.items():
        (found,) = connection.execute("SELECT current_setting(%s)", (setting,)).fetchone() or ("",)
        if found not in good:
            raise IndexProblem(
                f"the database {name} runs with {setting} = {found} for this user, so a commit is not durable: set it to "
                f"{good[0]} (ALTER ROLE … SET, or postgresql.conf)"
            )


def _install(connection: Connection, name: str) -> None:
    """Makes what all indexes share, if it is missing; only then does the user need the right to create it."""
    if connection.execute("SELECT to_regclass('rankone.about')").fetchone() == (None,):
        with connection.transaction():
            lock_tables(connection)  # services that start at once wait for each other, and find all made
            _make(connection, name)
    (schema,) = connection.execute("SELECT schema FROM rankone.about").fetchone() or (None,)
    if schema != SCHEMA:
        raise IndexProblem(
            f"the database {name} has schema {schema} of rankone, and this version knows schema {SCHEMA} only: use the "
            "version that made it"
        )


def _make(connection: Connection, name: str) -> None:
    query = "SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'"
    if connection.execute(query).fetchone() == (0,):
        raise IndexProblem(f"the server of the database {name} has no pgvector: install it (0.8 or later)")
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    (version,) = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone() or ("",)
    if tuple(map(int, version.split(".")[:2])) < (0, 8):
        raise IndexProblem(
            f"the database {name} has pgvector {version}, and 0.8 is needed: ALTER EXTENSION vector UPDATE"
        )
    connection.execute(_TABLES)


def lock_tables(connection: Connection) -> None:
    """Keeps other services from making or dropping tables until the transaction ends: two at once would fail."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtext('rankone'))")


SCHEMA: Final = 1
_TABLES: Final = f"""
CREATE SCHEMA IF NOT EXISTS rankone;
CREATE TABLE IF NOT EXISTS rankone.about (one boolean PRIMARY KEY DEFAULT true CHECK (one), schema int NOT NULL);
INSERT INTO rankone.about (schema) VALUES ({SCHEMA}) ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS rankone.indexes (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    fingerprint text NOT NULL,
    dim int NOT NULL,
    dtype text NOT NULL,
    kind text NOT NULL,
    thumbnails boolean NOT NULL,
    sequence bigint NOT NULL DEFAULT 0,
    count bigint NOT NULL DEFAULT 0,
    recall double precision,
    depth int,
    map bytea
);
"""  # noqa: S608 - of constants
