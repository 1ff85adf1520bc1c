"""A read for which nobody waits any more ends, wherever SQLite is with it."""

from __future__ import annotations

import pytest

from service.index import Index, Item, compiled
from service.index.interest import GivenUp, read_until
from tests.service.index.conftest import DIM
from tests.service.index.oracle import unit

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
