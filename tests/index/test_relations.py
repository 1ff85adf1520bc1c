"""Searches held against each other: what must not matter does not, for both kinds of index.

Of a compact index most items are not read from disk where k is small: what it does not find, it must not find in any order.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rankone.index import Index, Item, compiled
from rankone.index.database import create_file
from rankone.index.spec import Kind
from tests.index.conftest import SPEC
from tests.index.oracle import unit

NUM_ITEMS, DIM = 300, 501


def filled(path: Path, kind: Kind, order: list[int]) -> Index:
    """Items added in that order; some of them replace others, and some are gone again, so that rows have moved."""
    create_file(path, replace(SPEC, dim=DIM, kind=kind))
    index = Index(path)
    vectors = unit(NUM_ITEMS, DIM, seed=2)
    index.put([Item(str(i), vectors[-1 - i], {"part": 1 - i % 3}) for i in order[::5]])
    for start in range(0, len(order), 7):
        index.put([Item(str(i), vectors[i], {"part": i % 3}) for i in order[start : start + 7]])
        index.put([Item(f"gone-{start}", vectors[start])])
    index.delete([f"gone-{start}" for start in range(0, len(order), 7)])
    return index


@pytest.mark.parametrize("kind", ["exact", "compact"])
def test_order_and_company_change_nothing_and_a_filter_takes_away(tmp_path: Path, kind: Kind) -> None:
    """Bit by bit: in whatever order items were added, and whether queries come together or alone."""
    queries, order = unit(NUM_ITEMS, DIM, seed=2)[:40], list(range(NUM_ITEMS))
    first = filled(tmp_path / "a.sqlite", kind, order)
    second = filled(tmp_path / "b.sqlite", kind, order[::-1])
    for k in (10, NUM_ITEMS):
        together = first.search(queries, k)
        assert second.search(queries, k) == together
        assert [first.search(query[None], k)[0] for query in queries] == together
        assert {len(hits) for hits in together} == {k}
        for place, hits in enumerate(together):
            assert hits[0].id == str(place)
            assert hits[0].score == pytest.approx(1, abs=1e-3)
        kept = [[hit for hit in hits if hit.metadata["part"] == 1] for hits in together]
        for hits, some in zip(first.search(queries, k, where=compiled({"part": 1})), kept, strict=True):
            assert {hit.metadata["part"] for hit in hits} == {1}
            assert len(hits) == min(k, NUM_ITEMS // 3)
            assert all(hit.score >= other.score for hit, other in zip(hits, some, strict=False))
            if kind == "exact" or k == NUM_ITEMS:
                assert hits[: len(some)] == some
    first.close()
    second.close()
