"""The power goes: whatever was not synced is lost, or any part of it is. What was acknowledged is there."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.index.crash import lifecycle
from tests.index.crash.disk import Disk
from tests.index.crash.power_cuts import Recorded
from tests.index.crash.record import built, events


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("there is no C compiler on this machine, which the recorder of file operations needs")
    return built(tmp_path_factory.mktemp("recorder"))


@pytest.fixture(params=[12, pytest.param(30, marks=pytest.mark.slow)])
def cuts(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture
def recorded(library: Path, tmp_path: Path) -> Recorded:
    (tmp_path / "run").mkdir()
    return Recorded(library, tmp_path / "run")


@pytest.mark.parametrize("kind", ["exact", "compact"])
def test_nothing_acknowledged_is_lost(recorded: Recorded, tmp_path: Path, kind: str, cuts: int) -> None:
    """Neither of the index, nor of the backups that are taken of it meanwhile."""
    recorded.work("--steps", "15", "--kind", kind, with_copies=True)
    assert sum(copying.is_done for copying in recorded.account().copies.values()) > 1
    losses = recorded.losses(tmp_path / "cuts", random.Random(0), cuts)
    assert len(losses) == cuts
    assert [faults for faults in losses if faults] == []


def test_without_a_sync_at_each_commit_it_is_lost(recorded: Recorded, tmp_path: Path, cuts: int) -> None:
    """The control: what SQLite calls NORMAL, as most would set it, and the same cuts."""
    recorded.work("--steps", "25", "--synchronous", "NORMAL")
    losses = recorded.losses(tmp_path / "cuts", random.Random(0), cuts)
    lost = [faults for faults in losses if any("not as acknowledged: missing" in fault for fault in faults)]
    assert len(lost) >= cuts // 4


@pytest.mark.parametrize(("unsynced", "loss"), [("files", "not whole"), ("folder", "acknowledged and is not there")])
def test_without_a_sync_before_or_after_its_name_is_given_a_backup_is_lost(
    recorded: Recorded, tmp_path: Path, unsynced: str, loss: str, cuts: int
) -> None:
    """The controls: a disk that syncs all but the files of backups, and one that syncs all but their folder."""
    recorded.work("--steps", "10", with_copies=True)
    losses = recorded.losses(tmp_path / "cuts", random.Random(0), cuts, unsynced)
    assert all("backup" in fault for faults in losses for fault in faults)
    assert len([faults for faults in losses if any(loss in fault for fault in faults)]) >= cuts // 4


def test_an_index_is_made_dropped_and_restored_wholly_or_not_at_all(recorded: Recorded, tmp_path: Path) -> None:
    """The power is cut after every sync, and after every name that was given, changed or taken away."""
    recorded.run("-m", "tests.index.crash.lifecycle", str(recorded.root))
    disk, draw, reached = Disk(recorded.root, lambda: False), random.Random(0), Counter[bool]()
    for number, event in enumerate(events(recorded.record)):
        disk.play(event)
        if event.kind in ("open", "write") or not (stages := disk.read(recorded.root / "stages")):
            continue
        share = draw.choice([0.0, draw.random()])
        disk.cut(tmp_path / str(number), lambda: draw.random() < share)  # noqa: B023 - called at once
        left = lifecycle.found(tmp_path / str(number))
        assert left in lifecycle.may_be_found(stages)
        reached["mine" in left] += 1
    assert min(reached[True], reached[False]) > 10


@pytest.mark.parametrize("number", [28, 31, 34, 37])
def test_pages_that_a_failed_sync_left_in_memory_only_are_not_relied_on(
    recorded: Recorded, tmp_path: Path, number: int, cuts: int
) -> None:
    """A sync fails, once; the index stores nothing more and dies. The next one reads from memory what is not on the disk, and
    what it acknowledges, or has shown, must not depend on it."""
    recorded.work("--steps", "40", FAIL_SYNC_AT=str(number))
    played = events(recorded.record)
    assert sum(event.kind == "unsynced" for event in played) == 1
    assert len(played) - [event.kind for event in played].index("unsynced") < 200
    recorded.work("--steps", "10", seed="1")
    losses = recorded.losses(tmp_path / "cuts", random.Random(0), cuts)
    assert [faults for faults in losses if faults] == []
