"""One transaction for all that waits, one answer for each; and what becomes of the index when the disk does not do its part."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from rankone.index import Index, IndexFull, IndexProblem, IndexReadOnly, Item, compiled, store
from rankone.index.change import Change, Effect
from rankone.index.filters import Sql
from rankone.index.store import Store
from tests.index.conftest import DIM
from tests.index.oracle import unit


def item(item_id: str, **metadata: Any) -> Item:
    return Item(item_id, unit(1, DIM, seed=sum(map(ord, item_id)))[0], metadata)


class Held:
    """Keeps the writer's next commit until `free` is set, and counts the transactions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.busy, self.free, self.sizes = threading.Event(), threading.Event(), list[int]()
        commit = Store.commit

        def held(store: Store, changes: Sequence[Change]) -> list[Effect | Exception]:
            self.sizes.append(len(changes))
            self.busy.set()
            assert self.free.wait(10)
            return commit(store, changes)

        monkeypatch.setattr(Store, "commit", held)


def test_waiting_requests_share_one_transaction(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)
    futures = [index.submit([item("first")])]
    assert held.busy.wait(10)
    futures += [index.submit([item(f"{i}")]) for i in range(50)]
    deleted = index.submit_delete(["first", "7"])
    assert not any(future.done() for future in futures)
    held.free.set()
    assert [future.result(10).sequence for future in futures] == list(range(1, 52))
    assert deleted.result(10).removed == ["first", "7"]
    assert held.sizes == [1, 51]
    assert len(index) == 49


def test_a_request_at_fault_fails_alone(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within one transaction, its own changes are taken back and nobody else's, and no number is lost.

    Its second id cannot be bound, when the first is already deleted.
    """
    held = Held(monkeypatch)
    first = index.submit([item("first")])
    assert held.busy.wait(10)
    good, bad, also = index.submit([item("a")]), index.submit_delete(["first", "\udcff"]), index.submit([item("c")])
    held.free.set()
    assert [future.result(10).sequence for future in (first, good, also)] == [1, 2, 3]
    with pytest.raises(UnicodeEncodeError):
        bad.result(10)
    assert held.sizes == [1, 3]
    assert [found.id for _, found in index.page(10)] == ["first", "a", "c"]
    assert len(index) == 3


def test_a_request_cancelled_before_its_turn_is_not_stored(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)
    index.submit([item("first")])
    assert held.busy.wait(10)
    dropped, kept = index.submit([item("dropped")]), index.submit([item("kept")])
    assert dropped.cancel()
    held.free.set()
    kept.result(10)
    assert [found.id for _, found in index.page(10)] == ["first", "kept"]


def test_a_full_disk_refuses_requests_that_do_not_fit_and_stores_those_that_do(index: Index, path: Path) -> None:
    """As SQLite reports it when the file may not grow any more; a deletion that waited with the large one goes through."""
    index.put([item("a"), item("b")])
    connection = index._store._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    large = [Item(f"l{i}", vector) for i, vector in enumerate(unit(2000, DIM))]
    futures: list[Future[Effect]] = [index.submit(large), index.submit_delete(["a"]), index.submit(large)]
    for future in (futures[0], futures[2]):
        with pytest.raises(IndexFull, match="nothing of this request was stored"):
            future.result(10)
    assert futures[1].result(10).removed == ["a"]
    assert (len(index), index.problem) == (1, None)
    assert [hit.id for hit in index.search(unit(1, DIM), 10)[0]] == ["b"]
    connection.execute("PRAGMA max_page_count = 1000000")
    index.put(large)
    assert len(index) == 2001
    index.close()
    assert len(Index(path)) == 2001


class Failing:
    """A connection whose disk fails at a statement."""

    def __init__(self, connection: sqlite3.Connection, statement: str, code: int) -> None:
        self._connection, self._statement, self._code = connection, statement, code

    def execute(self, statement: str, *parameters: Any) -> Any:
        if statement.startswith(self._statement):
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode, error.sqlite_errorname = self._code, "SQLITE_IOERR_FSYNC"
            raise error
        return self._connection.execute(statement, *parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@pytest.mark.parametrize("statement", ["COMMIT", "DELETE", "PRAGMA wal_checkpoint"])
def test_a_disk_that_fails_makes_the_index_read_only(
    index: Index, path: Path, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rankone.index.writer._CHECKPOINT_BYTES", -1)
    index.put([item("a")])
    while index._store._acknowledged._last.checkpointed == 0:
        time.sleep(0.001)
    index._store._connection = Failing(index._store._connection, statement, sqlite3.SQLITE_IOERR_FSYNC)  # type: ignore[assignment]
    if statement == "PRAGMA wal_checkpoint":
        index.put([item("b")])  # is in the log already
        while index.problem is None:
            time.sleep(0.001)
    with pytest.raises(IndexReadOnly, match="the disk failed"):
        index.put([item("c")])
    for future in (index.submit([item("d")]), index.submit_delete(["a"])):
        with pytest.raises(IndexReadOnly, match="SQLITE_IOERR_FSYNC: disk I/O error"):
            future.result(10)
    expected = ["a", "b"] if statement == "PRAGMA wal_checkpoint" else ["a"]
    assert sorted(hit.id for hit in index.search(unit(1, DIM), 10)[0]) == expected
    assert [found.id for _, found in index.page(10)] == expected
    index.close()
    reopened = Index(path)
    assert (reopened.problem, len(reopened)) == (None, len(expected))
    reopened.close()


def test_a_search_sees_one_state_and_all_that_was_acknowledged(index: Index) -> None:
    """Sixty items are replaced all at once, over and over; every search, filtered or not, finds them in one generation, and
    none before the last that was acknowledged when it was asked."""
    names = [f"{i:02}" for i in range(60)]
    generations = 60
    acknowledged = 0
    failures: list[str] = []

    def replace() -> None:
        nonlocal acknowledged
        for generation in range(1, generations + 1):
            vectors = unit(60, DIM, seed=generation)
            index.put([Item(name, v, {"g": generation}) for name, v in zip(names, vectors, strict=True)])
            acknowledged = generation

    def search(source: dict[str, Any] | None) -> None:
        while acknowledged < generations:
            least = acknowledged
            where = None if source is None else compiled(source)
            (hits,) = index.search(unit(1, DIM), 100, where=where)
            found = {hit.metadata["g"] for hit in hits}
            if least and (len(hits) != 60 or len(found) != 1 or min(found) < least):
                failures.append(f"{len(hits)} items of generations {found} after {least}")

    threads = [threading.Thread(target=search, args=(source,)) for source in (None, {"g": {"$gte": 0}}) * 2]
    for thread in threads:
        thread.start()
    replace()
    for thread in threads:
        thread.join(20)
    assert failures == []


def test_a_closed_index_answers_nobody(index: Index) -> None:
    index.close()
    with pytest.raises(IndexProblem, match="closed"):
        index.put([item("a")])
    with pytest.raises(IndexProblem, match="closed"):
        index.search(unit(1, DIM), 1)


def test_after_an_error_of_another_kind_the_next_transaction_begins_anew(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite leaves this one open, with a change in it."""
    index.put([item("a")])
    monkeypatch.setattr(store, "sql_of", lambda _: Sql("(no_such_column)"))
    with pytest.raises(IndexProblem, match="nothing of this request was stored"):
        index._writer.submit(Change(ids=["a"], where=compiled({"a": 1}))).result(10)
    assert index.put([item("b")]) == 2
    assert [found.id for _, found in index.page(10)] == ["a", "b"]
