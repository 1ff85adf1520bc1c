"""Any sequence of changes, searches, restarts and backups, against a dictionary and NumPy.

Both kinds alike: of so few items a compact index looks at all.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from rankone.index import Index, Item
from rankone.index.backup import back_up, restore
from rankone.index.database import create_file, wal_files
from rankone.index.spec import Kind
from tests.index.conftest import SPEC
from tests.index.oracle import Oracle
from tests.index.rules import Rules


class Machine(Rules):
    """An index in a file."""

    kind: Kind = "exact"

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "index.sqlite"
        create_file(self.path, replace(SPEC, kind=self.kind))
        self.index, self.oracle = Index(self.path), Oracle()
        self.backups: list[tuple[Path, dict[str, Item]]] = []
        self.num_kills = 0

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

    def teardown(self) -> None:
        self.index.close()
        self.folder.cleanup()


class CompactMachine(Machine):
    """The same."""

    kind: Kind = "compact"


TestMachine, TestCompactMachine = Machine.TestCase, CompactMachine.TestCase
TestMachine.settings = settings(max_examples=25, stateful_step_count=25, deadline=None, derandomize=True)
TestCompactMachine.settings = settings(TestMachine.settings, max_examples=15)
