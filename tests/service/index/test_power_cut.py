"""The power goes: whatever was not synced is lost, or any part of it is. What was acknowledged is there."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.service.index.crash.audit import audit
from tests.service.index.crash.clients import content
from tests.service.index.crash.disk import Disk, built, environment, events
from tests.service.index.crash.ledger import Account
from tests.service.index.crash.worker import DIM

CUTS = int(os.environ.get("RANKONE_POWER_CUTS", "40"))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("there is no C compiler on this machine, which the recorder of file operations needs")
    return built(tmp_path_factory.mktemp("recorder"))


class Recorded:
    """A worker's run on files under `root`, and its record."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._library = library
        self.root, self.record = folder / "root", folder / "record"
        self.root.mkdir()

    def work(self, *flags: str, seed: str = "0", **failures: str) -> None:
        command = [sys.executable, "-m", "tests.service.index.crash.worker", "--checkpoint-bytes", "300000"]
        where = [self.root / "deep" / "index", self.root / "ledger", seed]
        subprocess.run(
            [*command, *flags, *where],
            env=environment(self._library, self.root, self.record, **failures),
            stdout=subprocess.DEVNULL,
            check=True,
        )

    def losses(self, target: Path, draw: random.Random, moments: int) -> list[list[str]]:
        """For so many power cuts what is wrong after each."""
        played = events(self.record)
        at = {len(played), *draw.sample(range(len(played)), moments - 1)}
        disk, found = Disk(self.root, lambda: draw.random() < 0.5), list[list[str]]()
        for number, event in enumerate([*played, None]):
            if number in at:
                found.append(faults_after(disk, self.root, target / str(number), draw))
            if event is not None:
                disk.play(event)
        return found


def faults_after(disk: Disk, root: Path, target: Path, draw: random.Random) -> list[str]:
    """Half of the cuts lose all that they may."""
    account = Account.of(disk.read(root / "ledger"))
    share = draw.choice([0.0, draw.random()])
    disk.cut(target, lambda: draw.random() < share)
    if not (target / "deep" / "index" / "default.sqlite").exists():
        return [f"nothing is there, and {account.num_acknowledged} were acknowledged"] * bool(account.num_acknowledged)
    _, faults = audit(target / "deep" / "index", account, partial(content, dim=DIM))
    shutil.rmtree(target)
    return faults


@pytest.fixture
def recorded(library: Path, tmp_path: Path) -> Recorded:
    (tmp_path / "run").mkdir()
    return Recorded(library, tmp_path / "run")


def test_nothing_acknowledged_is_lost(recorded: Recorded, tmp_path: Path) -> None:
    recorded.work("--steps", "25")
    losses = recorded.losses(tmp_path / "cuts", random.Random(0), CUTS)
    assert len(losses) == CUTS
    assert [faults for faults in losses if faults] == []


def test_without_a_sync_at_each_commit_it_is_lost(recorded: Recorded, tmp_path: Path) -> None:
    """The control: what SQLite calls NORMAL, as most would set it, and the same cuts."""
    recorded.work("--steps", "25", "--synchronous", "NORMAL")
    losses = recorded.losses(tmp_path / "cuts", random.Random(0), CUTS)
    lost = [faults for faults in losses if any("not as acknowledged: missing" in fault for fault in faults)]
    assert len(lost) >= CUTS // 4


@pytest.mark.parametrize("number", [20, 33, 46, 59])
def test_what_a_failed_sync_left_in_memory_alone_is_not_built_upon(
    recorded: Recorded, tmp_path: Path, number: int
) -> None:
    """A sync fails, once; the index stores nothing more and dies. The next one reads from memory what is not on the disk, and what
    it acknowledges, or has shown, must not depend on it."""
    recorded.work("--steps", "40", FAIL_SYNC_AT=str(number))
    played = events(recorded.record)
    assert sum(event.kind == "unsynced" for event in played) == 1
    assert len(played) - [event.kind for event in played].index("unsynced") < 200
    recorded.work("--steps", "10", seed="1")
    losses = recorded.losses(tmp_path / "cuts", random.Random(0), CUTS)
    assert [faults for faults in losses if faults] == []
