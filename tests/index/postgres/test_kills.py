"""The server and its services are killed with -9: four times here, 60 by `python -m tests.index.postgres.kills`."""

from __future__ import annotations

from pathlib import Path

from tests.index.postgres import kills


def test_nothing_acknowledged_is_lost_to_kill_9(tmp_path: Path) -> None:
    figures = kills.run(tmp_path, 4, seed=3)
    assert figures.faults == []
    assert figures.kills["server"] > 0
    assert figures.kills["server"] < 4
    assert figures.acknowledged > 10
