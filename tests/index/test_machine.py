"""Any sequence of changes, searches, restarts and backups, against a dictionary and NumPy.

Both kinds alike: of so few items a compact index looks at all.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rankone.index import Index, Item, Query, SearchOptions, UnknownItem, compiled
from rankone.index.backup import back_up, restore
from rankone.index.database import Kind, create_file, wal_files
from tests.index.conftest import DIM, SPEC
from tests.index.oracle import Oracle, unit

IDS = st.sampled_from([f"{i:02}" for i in range(12)])
VECTORS = unit(8, DIM)
METADATA = st.fixed_dictionaries({}, optional={"n": st.integers(0, 3) | st.none(), "s": st.sampled_from(["x", "y"])})
NEW = st.lists(st.tuples(IDS, st.integers(0, 7), METADATA), min_size=1, max_size=6, unique_by=lambda entry: entry[0])
FILTERS = st.sampled_from(
    [{"n": {"$gte": 1}}, {"s": "x"}, {"n": None}, {"$not": {"s": "y"}}, {"$or": [{"n": 0}, {"s": {"$exists": False}}]}]
)


class Machine(RuleBasedStateMachine):
    """Items repeat eight vectors, so that ties are the rule."""

    kind: Kind = "exact"

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "index.sqlite"
        create_file(self.path, replace(SPEC, kind=self.kind))
        self.index, self.oracle = Index(self.path), Oracle()
        self.backups: list[tuple[Path, dict[str, Item]]] = []
        self.num_kills = 0

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
        question = Query(VECTORS[asked], [SearchOptions(k, min_score, exclude)] * len(asked), where)
        for query, hits in zip(VECTORS[asked], self.index.ask(question).result(), strict=True):
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

    @rule()
    def restart(self) -> None:
        self.index.close()
        self.index = Index(self.path)

    @rule()
    def die(self) -> None:
        """What a kill would leave on disk, a log that was not checkpointed, is opened elsewhere."""
        self.num_kills += 1
        left = self.path.with_name(f"left-{self.num_kills}.sqlite")
        shutil.copy(self.path, left)
        shutil.copy(wal_files(self.path)[0], wal_files(left)[0])
        self.index.close()
        self.index, self.path = Index(left), left

    @rule()
    def back_up(self) -> None:
        target = self.path.with_name(f"backup-{len(self.backups)}")
        back_up(self.path, target, lambda *_: None)
        self.backups.append((target, dict(self.oracle.items)))

    @precondition(lambda self: self.backups)
    @rule(which=st.integers(0, 9))
    def restore(self, which: int) -> None:
        """Any of the backups, in the place of the index."""
        backup, items = self.backups[which % len(self.backups)]
        self.index.close()
        self.path.unlink()
        assert restore(backup, self.path, lambda *_: None) == len(items)
        self.index, self.oracle.items = Index(self.path), dict(items)

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.index) == len(self.oracle.items)
        assert self.index.problem is None

    def teardown(self) -> None:
        self.index.close()
        self.folder.cleanup()


class CompactMachine(Machine):
    """The same."""

    kind: Kind = "compact"


TestMachine, TestCompactMachine = Machine.TestCase, CompactMachine.TestCase
TestMachine.settings = settings(max_examples=25, stateful_step_count=25, deadline=None, derandomize=True)
TestCompactMachine.settings = settings(TestMachine.settings, max_examples=15)
