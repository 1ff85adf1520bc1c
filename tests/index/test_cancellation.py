"""A read that is cancelled ends, wherever SQLite is with it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from rankone.index import Cancelled, Index, Item, Query, SearchOptions, cancellable, compiled
from rankone.index.reader import Reader
from tests.index.conftest import DIM
from tests.index.oracle import unit

MANY_TERMS = compiled({"$or": [{f"field{n}": {"$in": [f"{n}-{m}" for m in range(20)]}} for n in range(120)]})
"""That no item holds: every one of them is compared with all."""
LONG = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000000) SELECT max(i) FROM n"


@pytest.fixture
def filled(index: Index) -> Index:
    index.put([Item(f"{n}", vector, {"n": n}) for n, vector in enumerate(unit(400, DIM))])
    return index


def query(where: bool = False) -> Query:
    return Query(unit(1, DIM), [SearchOptions(3)], MANY_TERMS if where else None)


def test_a_cancelled_read_ends_and_the_next_one_is_whole(filled: Index) -> None:
    """By the same reader."""
    with cancellable(lambda: True), pytest.raises(Cancelled, match="was cancelled"):
        filled.page(10, 0, MANY_TERMS)
    assert filled.page(10, 0, MANY_TERMS) == []
    assert [item.id for _, item in filled.page(3)] == ["0", "1", "2"]


def test_a_read_that_is_not_cancelled_goes_on(filled: Index) -> None:
    asked: list[bool] = []

    def is_cancelled() -> bool:
        asked.append(True)
        return False

    with cancellable(is_cancelled):
        assert filled.page(10, 0, MANY_TERMS) == []
    assert asked
    asked.clear()
    filled.page(10, 0, MANY_TERMS)
    assert not asked


def test_a_search_that_is_cancelled_while_its_filter_is_read_holds_nobody_up(
    filled: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[bool] = []

    def very_long(reader: Reader, *_: object) -> list[int]:
        began.append(True)
        return reader._fetch(LONG)

    with monkeypatch.context() as patch:
        patch.setattr(Reader, "sequences", very_long)
        cancelled, other = filled.submit_search(query(where=True)), filled.submit_search(query())
        until(lambda: bool(began))
        assert cancelled.cancel()
        assert len(other.result(10)[0]) == 3
    assert filled.submit_search(query(where=True)).result(10) == [[]]


def test_a_search_that_is_asked_together_with_a_cancelled_one_is_answered(filled: Index) -> None:
    with filled._searching._turn:  # so that both wait for the first, and go together
        first = filled.submit_search(query())
        cancelled, other = filled.submit_search(query(where=True)), filled.submit_search(query(where=True))
        assert cancelled.cancel()
    assert [len(answer.result(10)[0]) for answer in (first, other)] == [3, 0]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)
