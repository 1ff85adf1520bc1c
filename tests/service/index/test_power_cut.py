"""The power goes: whatever was not synced is lost, or any part of it is. What was acknowledged is there."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from service.index import Indexes
from tests.service.index.crash.disk import Disk, built, events
from tests.service.index.crash.power_cuts import Recorded

CUTS = 30


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("there is no C compiler on this machine, which the recorder of file operations needs")
    return built(tmp_path_factory.mktemp("recorder"))


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


MADE_AND_DROPPED = """
import os, sys
from pathlib import Path
from service.index import Indexes, Spec
indexes = Indexes(Path(sys.argv[1]))
indexes.create("mine", Spec("a" * 64, 8))
if sys.argv[2] == "drop":
    indexes.drop("mine")
os._exit(0)
"""


@pytest.mark.parametrize(("then", "names"), [("keep", ["mine"]), ("drop", [])])
def test_an_index_that_was_made_is_there_and_one_that_was_dropped_is_not(
    recorded: Recorded, tmp_path: Path, then: str, names: list[str]
) -> None:
    recorded.run("-c", MADE_AND_DROPPED, str(recorded.root / "index"), then)
    disk = Disk(recorded.root, lambda: False)
    for event in events(recorded.record):
        disk.play(event)
    disk.cut(tmp_path / "left", lambda: False)
    indexes = Indexes(tmp_path / "left" / "index")
    assert indexes.names() == names
    indexes.close()


@pytest.mark.parametrize("number", [33, 46])
def test_what_a_failed_sync_left_in_memory_alone_is_not_built_upon(
    recorded: Recorded, tmp_path: Path, number: int
) -> None:
    """A sync fails, once; the index stores nothing more and dies. The next one reads from memory what is not on the disk, and
    what it acknowledges, or has shown, must not depend on it."""
    recorded.work("--steps", "40", FAIL_SYNC_AT=str(number))
    played = events(recorded.record)
    assert sum(event.kind == "unsynced" for event in played) == 1
    assert len(played) - [event.kind for event in played].index("unsynced") < 200
    recorded.work("--steps", "10", seed="1")
    losses = recorded.losses(tmp_path / "cuts", random.Random(0), CUTS)
    assert [faults for faults in losses if faults] == []
