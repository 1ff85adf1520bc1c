"""A read for which nobody waits any more ends, wherever SQLite is with it."""

from __future__ import annotations

import time

import pytest

from rankone.index import Index, Item, Query, Wish, compiled
from rankone.index.database import GivenUp, read_until
from tests.index.conftest import DIM
from tests.index.oracle import unit

MANY_TERMS = compiled({"$or": [{f"field{n}": {"$in": [f"{n}-{m}" for m in range(20)]}} for n in range(120)]})
"""That no item holds: every one of them is compared with all."""


@pytest.fixture
def filled(index: Index) -> Index:
    index.put([Item(f"{n}", vector, {"n": n}) for n, vector in enumerate(unit(400, DIM))])
    return index


def test_a_read_that_is_over_ends_and_the_next_one_is_whole(filled: Index) -> None:
    """By the same reader."""
    with read_until(lambda: True), pytest.raises(GivenUp, match="nobody waits"):
        filled.page(10, 0, MANY_TERMS)
    assert filled.page(10, 0, MANY_TERMS) == []
    assert [item.id for _, item in filled.page(3)] == ["0", "1", "2"]


def test_the_filter_of_a_search_is_read_until_its_deadline_and_nobody_else_is_held_up(filled: Index) -> None:
    late = filled.ask(Query(unit(1, DIM), [Wish(3)], MANY_TERMS, deadline=time.perf_counter()))
    other = filled.ask(Query(unit(1, DIM), [Wish(3)]))
    with pytest.raises(GivenUp):
        late.result(10)
    assert len(other.result(10)[0]) == 3
    assert filled.search(unit(1, DIM), 3, where=MANY_TERMS) == [[]]


def test_alike_searches_are_read_for_until_the_last_of_their_deadlines(filled: Index) -> None:
    asked = [Query(unit(1, DIM), [Wish(3)], MANY_TERMS, deadline=time.perf_counter() + more_s) for more_s in (0, 60)]
    with filled._searcher._turn:  # so that both wait for the first, and go together
        first = filled.ask(Query(unit(1, DIM), [Wish(3)]))
        answers = list(map(filled.ask, asked))
    assert [len(answer.result(10)[0]) for answer in (first, answers[1])] == [3, 0]


def test_a_read_that_somebody_waits_for_goes_on(filled: Index) -> None:
    asked: list[bool] = []

    def is_over() -> bool:
        asked.append(True)
        return False

    with read_until(is_over):
        assert filled.page(10, 0, MANY_TERMS) == []
    assert asked
    asked.clear()
    filled.page(10, 0, MANY_TERMS)
    assert not asked
