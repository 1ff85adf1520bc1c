"""What is PostgreSQL's own: many services at once, settings that are not durable, cancellation, damage, and its limits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psycopg
import pytest

from rankone.index import (
    DEFAULT,
    Cancelled,
    IndexConflict,
    IndexDamaged,
    IndexProblem,
    Item,
    Query,
    SearchOptions,
    Spec,
    UnknownIndex,
    cancellable,
    compiled,
)
from rankone.index.errors import IndexUnavailable
from rankone.index.postgres import PostgresIndexes
from rankone.index.postgres import search as searching
from rankone.index.postgres.database import Database, name_of
from rankone.index.source import open_postgres
from tests.index.conftest import DIM, MODEL, SPEC, some_items
from tests.index.oracle import unit
from tests.postgres import Server


@pytest.fixture
def indexes(database: str) -> Iterator[PostgresIndexes]:
    indexes = PostgresIndexes(database, 60)
    indexes.create("mine", SPEC)
    yield indexes
    indexes.close()


def execute(database: str, *statements: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def test_services_that_start_and_make_an_index_at_once(database: str) -> None:
    """Making a table or an extension twice at once is an error in PostgreSQL."""
    ready = threading.Barrier(6, timeout=60)

    def start(_: int) -> bool:
        ready.wait()
        indexes = PostgresIndexes(database, 60)
        indexes.acquire(MODEL, DIM)
        ready.wait()
        made = indexes.create("mine", SPEC)
        indexes.close()
        return made

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(start, range(6))) == [False] * 5 + [True]


def test_indexes_are_found_compared_and_dropped_by_every_service(database: str, indexes: PostgresIndexes) -> None:
    other = PostgresIndexes(database, 60)
    other.acquire(MODEL, DIM, thumbnails=True)
    assert indexes.names() == [DEFAULT, "mine"]
    assert indexes.spec(DEFAULT) == Spec(MODEL, DIM, thumbnails=True)
    held = indexes.open("mine", MODEL)
    held.put(some_items(3))
    assert (other.counts(), other.count("nobody")) == ({DEFAULT: 0, "mine": 3}, 0)
    with pytest.raises(IndexConflict, match="there is an index 'mine' already, exact in float16"):
        other.create("mine", Spec(MODEL, DIM, "float32"))
    with pytest.raises(IndexConflict, match="was made with the bundle aaaa"):
        other.open("mine", "b" * 64)
    other.drop("mine")
    other.create("mine", SPEC)  # another one of that name, which the first must not be taken for
    for use in (
        lambda: held.put(some_items(1)),
        lambda: held.search(unit(1, DIM), 1),
        lambda: held.get("1"),
        lambda: held.page(1),
        lambda: indexes.open("gone"),
        lambda: indexes.drop("gone"),
    ):
        with pytest.raises(UnknownIndex):
            use()
    assert other.count("mine") == 0
    other.close()


def test_pages_skip_nothing_that_is_added_meanwhile(database: str, indexes: PostgresIndexes) -> None:
    """Numbers that a sequence of PostgreSQL gives are not in the order of the commits."""
    writers = [PostgresIndexes(database, 60) for _ in range(3)]
    done = threading.Event()

    def write(number: int) -> None:
        target = writers[number].open("mine")
        for turn in range(12):
            target.put([Item(f"{number}-{turn}-{i}", unit(1, DIM)[0]) for i in range(1 + turn % 3)])

    def follow() -> list[str]:
        seen, after = list[str](), 0
        while not (done.is_set() and not indexes.open("mine").page(1, after)):
            page = indexes.open("mine").page(5, after)
            seen += [item.id for _, item in page]
            after = page[-1][0] if page else after
        return seen

    with ThreadPoolExecutor(4) as pool:
        following = pool.submit(follow)
        for written in [pool.submit(write, number) for number in range(3)]:
            written.result()
        done.set()
        seen = following.result()
    assert len(seen) == len(set(seen)) == indexes.count("mine") == 72
    for service in writers:
        service.close()


def test_a_search_sees_what_another_service_has_acknowledged(database: str, indexes: PostgresIndexes) -> None:
    other = PostgresIndexes(database, 60)
    items = some_items(30)
    for item in items:
        indexes.open("mine").put([item])
        (hits,) = other.open("mine").search(np.asarray(item.vector)[None], 1)
        assert hits[0].id == item.id
    other.close()


def test_a_read_that_nobody_wants_any_more_is_interrupted(database: str) -> None:
    opened = Database(database, 60)
    gone = threading.Event()
    threading.Timer(0.3, gone.set).start()
    begun = time.monotonic()
    with pytest.raises(Cancelled), cancellable(gone.is_set), opened.reading() as connection:
        connection.execute("SELECT pg_sleep(60)")
    assert time.monotonic() - begun < 30
    with cancellable(lambda: False), opened.reading() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    opened.close()


def test_a_search_whose_future_is_cancelled_ends(indexes: PostgresIndexes, monkeypatch: pytest.MonkeyPatch) -> None:
    index, ended = indexes.open("mine"), threading.Event()

    def sleep(connection: psycopg.Connection, *_: object) -> None:
        try:
            connection.execute("SELECT pg_sleep(60)")
        finally:
            ended.set()

    monkeypatch.setattr("rankone.index.postgres.index.search", sleep)
    future = index.submit_search(Query(unit(1, DIM), [SearchOptions(1)]))
    time.sleep(0.2)
    assert future.cancel()
    assert ended.wait(30)


def test_a_statement_that_takes_too_long_is_ended(database: str) -> None:
    opened = Database(database, 0.2)
    with pytest.raises(IndexUnavailable, match="took too long"), opened.reading() as connection:
        connection.execute("SELECT pg_sleep(60)")
    opened.close()


def test_a_database_whose_commits_are_not_durable_is_refused(postgres: Server, database: str) -> None:
    execute(
        database,
        "CREATE ROLE hasty LOGIN SUPERUSER",
        "ALTER ROLE hasty SET synchronous_commit = off",
    )
    try:
        with pytest.raises(IndexProblem, match="synchronous_commit = off for this user, so a commit is not durable"):
            PostgresIndexes(database.replace("rankone@", "hasty@"), 60)
    finally:
        execute(database, "DROP ROLE hasty")


def test_a_user_without_rights_is_told_so(database: str) -> None:
    execute(database, "CREATE ROLE guest LOGIN")
    try:
        with pytest.raises(IndexProblem, match="does not allow it .permission denied"):
            PostgresIndexes(database.replace("rankone@", "guest@"), 60)
    finally:
        execute(database, "DROP ROLE guest")


def test_a_user_may_start_a_service_with_fewer_rights_than_the_first_start_needs(database: str) -> None:
    first = PostgresIndexes(database, 60)
    first.create("mine", SPEC)
    execute(
        database,
        "CREATE ROLE clerk LOGIN",
        "GRANT USAGE ON SCHEMA rankone TO clerk",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA rankone TO clerk",
    )
    try:
        clerk = PostgresIndexes(database.replace("rankone@", "clerk@"), 60)
        assert clerk.open("mine").put(some_items(2)) == 2
        with pytest.raises(IndexProblem, match="does not allow it .permission denied"):
            clerk.create("other", SPEC)
        clerk.close()
    finally:
        first.close()
        execute(database, "DROP OWNED BY clerk", "DROP ROLE clerk")


def test_a_newer_schema_is_refused(database: str) -> None:
    PostgresIndexes(database, 60).close()
    execute(database, "UPDATE rankone.about SET schema = 2")
    with pytest.raises(IndexProblem, match="has schema 2 of rankone, and this version knows schema 1 only"):
        PostgresIndexes(database, 60)


def test_a_database_that_is_away_is_named_without_its_password() -> None:
    url = "postgresql://me:secret@127.0.0.1:1/mine"
    with pytest.raises(IndexUnavailable, match="the database mine on 127.0.0.1 cannot be reached") as refused:
        open_postgres(url)
    assert "secret" not in str(refused.value)
    with pytest.raises(IndexProblem, match="the address of the database cannot be read"):
        name_of("postgresql://me@host/mine?colour=blue")


def test_vectors_that_are_too_long_are_refused(indexes: PostgresIndexes) -> None:
    with pytest.raises(IndexProblem, match="at most 16,000 numbers, not 16,001: index short embeddings"):
        indexes.create("long", Spec(MODEL, 16_001))
    assert indexes.names() == ["mine"]


def test_what_cannot_be_stored_is_refused_and_nothing_is_left(indexes: PostgresIndexes) -> None:
    index = indexes.open("mine")
    with pytest.raises(IndexProblem, match=r"U\+0000"):
        index.put([*some_items(2), Item("nul", unit(1, DIM)[0], {"a": "\0"})])
    assert index.page(9) == []
    assert index.put(some_items(1)) == 1


def test_metadata_comes_back_as_it_was_sent(indexes: PostgresIndexes) -> None:
    """jsonb would sort the fields by length."""
    metadata = {"long name": 1.0, "b": [1, {"z": None, "a": "é\U0001f40c"}], "a": -0.0, "c": 1e300}
    index = indexes.open("mine")
    index.put([Item("a", unit(1, DIM)[0], metadata)])
    assert list(index.get("a").metadata.items()) == list(metadata.items())
    assert str(index.get("a").metadata["a"]) == "-0.0"


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_vectors_come_back_bit_by_bit(indexes: PostgresIndexes, dtype: str) -> None:
    spec = Spec(MODEL, DIM, dtype)  # type: ignore[arg-type]
    indexes.create("bits", spec)
    vector = unit(1, DIM)[0]
    vector[:4] = [0.0, -0.0, 6e-8, 1e-3]
    indexes.open("bits").put([Item("a", vector)])
    assert indexes.open("bits").get("a").vector.tobytes() == vector.astype(spec.stored).tobytes()


def test_a_damaged_row_is_named_and_never_answered_as_an_item(database: str, indexes: PostgresIndexes) -> None:
    index = indexes.open("mine")
    index.put(some_items(4))
    execute(database, "UPDATE rankone.items_1 SET metadata = '{\"i\": 7}' WHERE id = '2'")
    with pytest.raises(IndexDamaged, match="the item '2' is damaged"):
        index.get("2")
    assert [item.id for _, item in index.page(9)] == ["0", "1", "3"]
    assert [item.id for item in index.missing(some_items(4))] == ["2"]


def test_a_query_of_zeros_scores_zero_with_every_item(indexes: PostgresIndexes) -> None:
    index = indexes.open("mine")
    index.put(some_items(60)[::-1])  # their order on disk is not that of their ids
    (hits,) = index.search(np.zeros((1, DIM), np.float32), 3)
    assert [(hit.id, hit.score) for hit in hits] == [("0", 0.0), ("1", 0.0), ("10", 0.0)]
    (none,) = index.search(np.zeros((1, DIM), np.float32), 3, min_score=0.1)
    assert none == []


@pytest.mark.parametrize("dim", [64, 3000], ids=["graph", "signs"])
def test_a_compact_search_finds_what_an_exact_one_does(indexes: PostgresIndexes, dim: int) -> None:
    """Near neighbours, which a graph finds; and as many as match a filter, however few."""
    rng = np.random.default_rng(1)
    centres = unit(40, dim)
    drawn = np.repeat(centres, 15, 0) + 0.4 / np.sqrt(dim) * rng.standard_normal((600, dim))
    vectors = np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)
    items = [Item(f"{i:03}", vector, {"rare": i % 300 == 0, "even": i % 2 == 0}) for i, vector in enumerate(vectors)]
    for name, kind in (("all", "exact"), ("few", "compact")):
        indexes.create(name, Spec(MODEL, dim, kind=kind))  # type: ignore[arg-type]
        indexes.open(name).put(items)
    exact, compact = indexes.open("all"), indexes.open("few")
    for where in (None, {"rare": True}, {"even": False}):
        found, wanted = (
            index.search(centres[:10], 10, where=None if where is None else compiled(where))
            for index in (compact, exact)
        )
        shares = [
            len({hit.id for hit in a} & {hit.id for hit in b}) / len(b) for a, b in zip(found, wanted, strict=True)
        ]
        assert np.mean(shares) >= 0.95, where
    (deep,) = compact.search(centres[:1], 600)
    assert len(deep) == 600


def test_the_graph_is_asked_when_a_filter_leaves_many(
    indexes: PostgresIndexes, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexes.create("few", Spec(MODEL, DIM, kind="compact"))
    index, items = indexes.open("few"), some_items(200)
    index.put(items)
    monkeypatch.setattr(searching, "_FEW", 50 * DIM)
    for below, is_near in ((20, False), (190, True)):
        asked = list[int]()
        near = searching._Scope.near

        def counted(*arguments: object, asked: list[int] = asked, near: object = near) -> object:
            asked.append(1)
            return near(*arguments)  # type: ignore[operator]

        monkeypatch.setattr(searching._Scope, "near", counted)
        (hits,) = index.search(np.asarray(items[3].vector)[None], 5, where=compiled({"i": {"$lt": below}}))
        assert (hits[0].id, len(hits), bool(asked)) == ("3", 5, is_near)
        monkeypatch.setattr(searching._Scope, "near", near)


def test_a_database_that_went_away_is_used_again_when_it_is_back() -> None:
    server = Server()
    try:
        indexes = PostgresIndexes(server.new_database(), 60)
        indexes.acquire(MODEL, DIM)
        index = indexes.open(DEFAULT)
        index.put(some_items(3))
        server.kill()
        with pytest.raises(IndexUnavailable, match="is tried again with every request"):
            index.put(some_items(5))
        assert "cannot be reached" in indexes.problems()[DEFAULT]
        server.start()
        for _ in range(200):
            if not indexes.problems():
                break
            time.sleep(0.1)
        assert indexes.count(DEFAULT) == 3
        assert index.put(some_items(5)) == 8
        indexes.close()
    finally:
        server.close()
