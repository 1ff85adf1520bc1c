"""kill -9 at random moments, over and over on the same folder.

python -m tests.index.crash.kills [--kills 200] [--seed 0] [--kind compact] [--copies]
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from rankone.index.spec import Kind
from tests.index.crash import worker
from tests.index.crash.audit import audit
from tests.index.crash.audit_copies import Seen, audit_copies
from tests.index.crash.clients import content
from tests.index.crash.ledger import Account, Ledger

_CONTENT: Final = partial(content, dim=worker.DIM)
_PROCESSES: Final = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([worker.__name__])  # importing it takes longer than most of them live
_LONGEST_S: Final = 0.6
_OPENING_S: Final = 0.1
_EARLY: Final = 6
"""One kill in so many comes while the index is being opened, and what the last kill left in the log is recovered."""


@dataclass
class Figures:
    """What a run of kills came to."""

    kills: int = 0
    while_opening: int = 0
    acknowledged: int = 0
    in_flight: int = 0
    in_flight_found: int = 0
    with_log: int = 0
    items: int = 0
    backups: int = 0
    backups_broken_off: int = 0
    faults: list[str] = field(default_factory=list)

    def lines(self) -> str:
        return "\n".join(f"{name.replace('_', ' '):18} {value}" for name, value in vars(self).items())


def run(folder: Path, kills: int, seed: int, kind: Kind = "exact", *, with_copies: bool = False) -> Figures:
    """Kills a worker on `folder` so many times; every time, a copy of what is left is opened and audited."""
    copies = folder / "copies" if with_copies else None
    figures, draw = Figures(), random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(kills):
        is_early = number % _EARLY == _EARLY - 1
        delay_s = draw.uniform(0, _OPENING_S if is_early else _LONGEST_S)
        _kill_one(folder, f"{seed}/{number}", kind, copies, delay_s, is_early=is_early)
        figures.while_opening += is_early
        _check(folder, figures)
    return figures


def _kill_one(folder: Path, seed: str, kind: Kind, copies: Path | None, delay_s: float, *, is_early: bool) -> None:
    told, tell = _PROCESSES.Pipe(duplex=False)
    given = (folder / "index", folder / "ledger", seed, kind, copies, None, tell.send)
    process = _PROCESSES.Process(target=worker.work, args=given)
    process.start()
    tell.close()  # or its end would not be seen
    while told.recv() != (worker.OPENING if is_early else worker.READY):
        pass
    time.sleep(delay_s)
    process.kill()
    process.join()


def _check(folder: Path, figures: Figures) -> None:
    """A copy is opened, so that the next worker finds what the kill left, and not what the audit tidied up."""
    ledger_path, copy = folder / "ledger", folder / "copy"
    lines = ledger_path.read_bytes() if ledger_path.exists() else b""
    account = Account.of(lines)
    figures.kills += 1
    figures.with_log += any(path.stat().st_size for path in (folder / "index").glob("*-wal"))
    shutil.copytree(folder / "index", copy, dirs_exist_ok=True) if (folder / "index").exists() else copy.mkdir()
    if not (copy / "default.sqlite").exists():
        assert not account.requests
        shutil.rmtree(copy)
        return
    found, faults = audit(copy, account, _CONTENT)
    faults += audit_copies(folder / "copies", copy / "default.sqlite", account, account, _CONTENT, Seen())
    figures.backups += sum(copying.is_done for copying in account.copies.values())
    figures.backups_broken_off += sum(not copying.is_done for copying in account.copies.values())
    shutil.rmtree(copy)
    shutil.rmtree(folder / "copies", ignore_errors=True)
    pending = [request for request in account.requests if request.sequence is None]
    figures.acknowledged += account.num_acknowledged
    figures.in_flight += len(pending)
    figures.in_flight_found += sum(_is_found(request.changes, found) for request in pending)
    figures.items, figures.faults = len(found), figures.faults + faults
    ledger = Ledger(ledger_path)
    ledger.settle(found)
    ledger.close()


def _is_found(changes: dict[str, int | None], found: dict[str, int]) -> bool:
    return any(version is not None and found.get(item_id) == version for item_id, version in changes.items())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=("exact", "compact"), default="exact")
    parser.add_argument("--copies", action="store_true")
    given = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        figures = run(Path(folder), given.kills, given.seed, given.kind, with_copies=given.copies)
    print(figures.lines())
    print(f"{'seconds':18} {time.monotonic() - start:.0f}")
    sys.exit(bool(figures.faults))


if __name__ == "__main__":
    main()
