"""Any sequence of changes, searches, restarts and backups, against a dictionary and NumPy; and what no other order changes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.index import Index, Item, compiled
from service.index.backup import back_up
from service.index.schema import make
from tests.service.index.conftest import DIM, SPEC
from tests.service.index.oracle import Oracle, unit

IDS = st.sampled_from([f"{i:02}" for i in range(12)])
VECTORS = unit(8, DIM)
METADATA = st.fixed_dictionaries({}, optional={"n": st.integers(0, 3) | st.none(), "s": st.sampled_from(["x", "y"])})
NEW = st.lists(st.tuples(IDS, st.integers(0, 7), METADATA), min_size=1, max_size=6, unique_by=lambda entry: entry[0])
FILTERS = st.sampled_from(
    [{"n": {"$gte": 1}}, {"s": "x"}, {"n": None}, {"$not": {"s": "y"}}, {"$or": [{"n": 0}, {"s": {"$exists": False}}]}]
)


class Machine(RuleBasedStateMachine):
    """Items repeat eight vectors, so that ties are the rule."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "index.sqlite"
        make(self.path, SPEC)
        self.index, self.oracle, self.backup = Index(self.path), Oracle(), dict[str, Item]()
        self.backups = 0

    @rule(new=NEW)
    def put(self, new: list[tuple[str, int, dict[str, Any]]]) -> None:
        items = [Item(item_id, VECTORS[vector], metadata) for item_id, vector, metadata in new]
        self.index.put(items)
        self.oracle.put(items)

    @rule(ids=st.lists(IDS, max_size=5))
    def delete(self, ids: list[str]) -> None:
        assert self.index.delete(ids) == self.oracle.delete(ids)

    @rule(source=FILTERS)
    def delete_by_filter(self, source: dict[str, Any]) -> None:
        ids = [item.id for item in self.oracle.matching(source)]
        assert self.index.delete(where=compiled(source)) == self.oracle.delete(ids)

    @rule(asked=st.lists(st.integers(0, 7), min_size=1, max_size=15), k=st.integers(1, 15), source=FILTERS | st.none())
    def search(self, asked: list[int], k: int, source: dict[str, Any] | None) -> None:
        where = None if source is None else compiled(source)
        for query, hits in zip(VECTORS[asked], self.index.search(VECTORS[asked], k, where=where), strict=True):
            scores = self.oracle.scores(query, source)
            order = sorted(scores, key=lambda item_id: (-round(scores[item_id], 6), item_id))
            assert [hit.id for hit in hits] == order[:k]
            for hit in hits:
                assert hit.score == pytest.approx(min(1, scores[hit.id]), abs=1e-5)
                assert hit.metadata == self.oracle.items[hit.id].metadata

    @rule(source=FILTERS | st.none(), limit=st.integers(1, 4))
    def list_in_pages(self, source: dict[str, Any] | None, limit: int) -> None:
        where = None if source is None else compiled(source)
        seen: list[str] = []
        after = 0
        while page := self.index.page(limit, after, where):
            seen += [item.id for _, item in page]
            after = page[-1][0]
        assert seen == [item.id for item in self.oracle.matching(source)]

    @rule()
    def restart(self) -> None:
        self.index.close()
        self.index = Index(self.path)

    @rule()
    def back_up(self) -> None:
        self.backups += 1
        back_up(self.path, self.path.with_name(f"backup-{self.backups}"), lambda *_: None)
        self.backup = dict(self.oracle.items)

    @precondition(lambda self: self.backups)
    @rule()
    def restore(self) -> None:
        self.index.close()
        self.path.unlink()
        back_up(self.path.with_name(f"backup-{self.backups}"), self.path, lambda *_: None)
        self.index, self.oracle.items = Index(self.path), dict(self.backup)

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.index) == len(self.oracle.items)
        assert self.index.problem is None

    def teardown(self) -> None:
        self.index.close()
        self.folder.cleanup()


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=25, stateful_step_count=25, deadline=None, derandomize=True)


def filled(path: Path, order: list[int], dim: int = 501) -> Index:
    from dataclasses import replace

    make(path, replace(SPEC, dim=dim))
    index = Index(path)
    vectors = unit(len(order), dim, seed=2)
    for start in range(0, len(order), 7):
        index.put([Item(str(i), vectors[i], {"part": i % 3}) for i in order[start : start + 7]])
    return index


def test_order_and_company_change_nothing_and_a_filter_takes_away(tmp_path: Path) -> None:
    """Bit by bit: in whatever order items were added, and whether queries come together or alone."""
    queries = unit(40, 501, seed=2)
    order = list(range(100))
    first, second = filled(tmp_path / "a.sqlite", order), filled(tmp_path / "b.sqlite", order[::-1])
    together = first.search(queries, 100)
    assert second.search(queries, 100) == together
    assert [first.search(query[None], 100)[0] for query in queries] == together
    for place, hits in enumerate(together):
        assert hits[0].id == str(place)
        assert hits[0].score == pytest.approx(1, abs=1e-3)
    filtered = first.search(queries, 100, where=compiled({"part": 1}))
    assert filtered == [[hit for hit in hits if hit.metadata["part"] == 1] for hits in together]
    assert first.search(queries, 5) == [hits[:5] for hits in together]
    assert np.all([len(hits) == 100 for hits in together])
    first.close()
    second.close()
