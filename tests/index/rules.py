"""Any sequence of changes and searches, against a dictionary and NumPy; whoever uses it says where the index is.

Items repeat eight vectors, so that ties are the rule.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rankone.index import AnyIndex, Item, Query, SearchOptions, UnknownItem, compiled
from tests.index.conftest import DIM
from tests.index.oracle import Oracle, unit

IDS = st.sampled_from([f"{i:02}" for i in range(12)])
METADATA = st.fixed_dictionaries({}, optional={"n": st.integers(0, 3) | st.none(), "s": st.sampled_from(["x", "y"])})
NEW = st.lists(st.tuples(IDS, st.integers(0, 7), METADATA), min_size=1, max_size=6, unique_by=lambda entry: entry[0])
FILTERS = st.sampled_from(
    [{"n": {"$gte": 1}}, {"s": "x"}, {"n": None}, {"$not": {"s": "y"}}, {"$or": [{"n": 0}, {"s": {"$exists": False}}]}]
)


class Rules(RuleBasedStateMachine):
    """`index` is what a subclass opened, and `oracle` what it should hold."""

    index: AnyIndex
    oracle: Oracle
    vectors = unit(8, DIM)

    @rule(new=NEW)
    def put(self, new: list[tuple[str, int, dict[str, Any]]]) -> None:
        items = [Item(item_id, self.vectors[vector], metadata) for item_id, vector, metadata in new]
        self.index.put(items)
        self.oracle.put(items)

    @rule(ids=st.lists(IDS, max_size=5))
    def delete(self, ids: list[str]) -> None:
        assert self.index.delete(ids) == self.oracle.delete(ids)

    @rule(source=FILTERS)
    def delete_by_filter(self, source: dict[str, Any]) -> None:
        ids = [item.id for item in self.oracle.matching(source)]
        assert self.index.delete(where=compiled(source)) == self.oracle.delete(ids)

    @rule(item_id=IDS)
    def look_up(self, item_id: str) -> None:
        sent = self.oracle.items.get(item_id)
        if sent is None:
            with pytest.raises(UnknownItem, match=item_id):
                self.index.get(item_id)
        else:
            found = self.index.get(item_id)
            assert (found.id, found.metadata) == (item_id, sent.metadata)
            assert found.vector.tobytes() == np.asarray(sent.vector).astype("<f2").tobytes()

    @rule(new=NEW)
    def put_again(self, new: list[tuple[str, int, dict[str, Any]]]) -> None:
        """Only what is stored otherwise is missing."""
        items = [Item(item_id, self.vectors[vector], metadata) for item_id, vector, metadata in new]
        stored = self.oracle.items
        found = [item.id for item in self.index.missing(items)]
        assert found == [
            item.id
            for item in items
            if item.id not in stored
            or stored[item.id].metadata != item.metadata
            or not np.array_equal(stored[item.id].vector, item.vector)
        ]

    @rule(
        asked=st.lists(st.integers(0, 7), min_size=1, max_size=15),
        k=st.integers(1, 15),
        source=FILTERS | st.none(),
        min_score=st.sampled_from([-np.inf, -0.1, 0.1, 0.9]),
        exclude=st.frozensets(IDS, max_size=2),
    )
    def search(
        self, asked: list[int], k: int, source: dict[str, Any] | None, min_score: float, exclude: frozenset[str]
    ) -> None:
        where = None if source is None else compiled(source)
        question = Query(self.vectors[asked], [SearchOptions(k, min_score, exclude)] * len(asked), where)
        for query, hits in zip(self.vectors[asked], self.index.submit_search(question).result(), strict=True):
            scores = self.oracle.scores(query, source)
            order = sorted(scores, key=lambda item_id: (-round(scores[item_id], 6), item_id))
            allowed = [item_id for item_id in order if scores[item_id] >= min_score and item_id not in exclude]
            assert [hit.id for hit in hits] == allowed[:k]
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

    @rule(source=FILTERS | st.none(), k=st.integers(1, 5), asked=st.integers(0, 7))
    def search_groups(self, source: dict[str, Any] | None, k: int, asked: int) -> None:
        where = None if source is None else compiled(source)
        query = Query(self.vectors[[asked]], [SearchOptions(k)], where, ("s",))
        scores = {
            item_id: score
            for item_id, score in self.oracle.scores(self.vectors[asked], source).items()
            if "s" in self.oracle.items[item_id].metadata
        }
        seen: dict[str, str] = {}
        for item_id in sorted(scores, key=lambda item_id: (-round(scores[item_id], 6), item_id)):
            seen.setdefault(self.oracle.items[item_id].metadata["s"], item_id)
        (hits,) = self.index.submit_search(query).result()
        assert [hit.id for hit in hits] == list(seen.values())[:k]

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.index) == len(self.oracle.items)
        assert self.index.problem is None
