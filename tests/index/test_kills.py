"""The process that holds an index is killed with -9: 8 times, 40 as a slow test, 200 by `python -m tests.index.crash.kills`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.index.crash import kills
from tests.index.crash.ledger import Account


@pytest.mark.parametrize("count", [8, pytest.param(40, marks=pytest.mark.slow)])
def test_nothing_acknowledged_is_lost_to_kill_9(tmp_path: Path, count: int) -> None:
    figures = kills.run(tmp_path, count, seed=0)
    assert figures.faults == []
    assert figures.while_opening == count // 6
    assert figures.acknowledged > 5 * count
    assert figures.in_flight > count // 2
    assert figures.with_log > count // 2


def test_nothing_is_lost_of_a_compact_index_or_of_backups_taken_meanwhile(tmp_path: Path) -> None:
    figures = kills.run(tmp_path, 3, seed=1, kind="compact", with_copies=True)
    assert figures.faults == []
    assert figures.acknowledged > 10
    assert figures.backups > 0
    assert figures.backups_broken_off > 0


def test_the_audit_would_see_it() -> None:
    """An acknowledged item that is missing, one deleted that is back, one that nobody sent, half of a request."""
    account = Account.of(
        b'{"settled": {"c0-1": 1, "c0-2": 1, "shared-0": 5}}\n'
        b'{"number": "a", "owner": "c0", "changes": {"c0-1": 2, "c0-3": 2}}\n'
        b'{"acknowledged": "a", "sequence": 4}\n'
        b'{"number": "b", "owner": "c0", "changes": {"c0-2": null, "c0-4": 3}}\n'
        b'{"number": "c", "owner": "shared", "changes": {"shared-0": null}}\n'
        b'{"number": "d", "owner": "shared", "changes": {"shared-0": 6}}\n'
        b'{"acknowledged": "d", "sequence": 6}\n'
        b'{"acknowledged": "c", "sequence": 5}\n'
        b'{"number": "e", "owner": "sha'
    )
    before, after = {"c0-1": 2, "c0-2": 1, "c0-3": 2}, {"c0-1": 2, "c0-3": 2, "c0-4": 3}
    assert account.outcomes("c0") == [before, after]
    assert account.outcomes("shared") == [{"shared-0": 6}]
    assert account.outcomes("c1") == [{}]
    assert account.at(5).outcomes("c0")[0] == before
    assert account.at(5).outcomes("shared")[0] == {}
    assert account.at(3).outcomes("c0")[0] == {"c0-1": 1, "c0-2": 1}
