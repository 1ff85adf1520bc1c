"""Power cuts at random moments of a recorded run.

python -m tests.index.crash.power_cuts [--cuts 1000] [--steps 50] [--seed 0] [--kind compact] [--copies]
    [--synchronous NORMAL] [--unsynced files|folder]

The last two are controls, which must lose something: SQLite as most set it up, and backups whose files, or whose folder, the
disk does not sync.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Final

from rankone.index import DEFAULT
from rankone.index.database import PARTIAL, SUFFIX
from tests.index.crash.audit import audit
from tests.index.crash.audit_copies import Seen, audit_copies
from tests.index.crash.clients import content
from tests.index.crash.disk import Disk, Heeds
from tests.index.crash.ledger import Account
from tests.index.crash.record import built, environment, events
from tests.index.crash.worker import DIM

_CONTENT: Final = partial(content, dim=DIM)
UNSYNCED: Final[dict[str | None, Heeds]] = {
    None: lambda _: True,
    "files": lambda path: PARTIAL not in path.name or path.parent.name != "copies",
    "folder": lambda path: path.name != "copies",
}
"""Disks that sync all they are asked to, not the files of backups, not the folder of backups."""


class Recorded:
    """A worker's run on files under `root`, and its record."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._library = library
        self.root, self.record = folder / "root", folder / "record"
        self.root.mkdir()

    def work(self, *flags: str, seed: str = "0", with_copies: bool = False, **failures: str) -> None:
        """A worker on the index in `deep/index`, with its ledger, and backups if any, beside it."""
        if with_copies:
            flags = (*flags, "--copies", str(self.root / "copies"))
        where = [str(self.root / "deep" / "index"), str(self.root / "ledger"), seed]
        self.run("-m", "tests.index.crash.worker", "--checkpoint-bytes", "300000", *flags, *where, **failures)

    def run(self, *arguments: str, **failures: str) -> None:
        """Any Python program."""
        recorded = environment(self._library, self.root, self.record, **failures)
        subprocess.run([sys.executable, *arguments], env=recorded, stdout=subprocess.DEVNULL, check=True)

    def account(self) -> Account:
        """All that became of the run."""
        return Account.of((self.root / "ledger").read_bytes())

    def losses(self, target: Path, draw: random.Random, moments: int, unsynced: str | None = None) -> list[list[str]]:
        """For so many power cuts what is wrong after each."""
        played, story, seen = events(self.record), self.account(), Seen()
        at = {len(played), *draw.sample(range(len(played)), moments - 1)}
        disk, found = Disk(self.root, lambda: draw.random() < 0.5, UNSYNCED[unsynced]), list[list[str]]()
        for number, event in enumerate([*played, None]):
            if number in at:
                found.append(faults_after(disk, self.root, target / str(number), draw, story, seen))
            if event is not None:
                disk.play(event)
        return found


def faults_after(disk: Disk, root: Path, target: Path, draw: random.Random, story: Account, seen: Seen) -> list[str]:
    """Half of the cuts lose all that they may."""
    now = Account.of(disk.read(root / "ledger"))
    share = draw.choice([0.0, draw.random()])
    disk.cut(target, lambda: draw.random() < share)
    source = target / "deep" / "index" / f"{DEFAULT}{SUFFIX}"
    if not source.exists():
        return [f"nothing is there, and {now.num_acknowledged} were acknowledged"] * bool(now.num_acknowledged)
    _, faults = audit(source.parent, now, _CONTENT)
    faults += audit_copies(target / "copies", source, now, story, _CONTENT, seen)
    shutil.rmtree(target)
    return faults


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cuts", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=("exact", "compact"), default="exact")
    parser.add_argument("--copies", action="store_true")
    parser.add_argument("--synchronous", choices=("FULL", "NORMAL"), default="FULL")
    parser.add_argument("--unsynced", choices=("files", "folder"))
    given = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recorded = Recorded(built(folder), folder)
        flags = ["--steps", str(given.steps), "--synchronous", given.synchronous, "--kind", given.kind]
        recorded.work(*flags, seed=str(given.seed), with_copies=given.copies)
        kinds = Counter(event.kind for event in events(recorded.record))
        account = recorded.account()
        losses = recorded.losses(folder / "cuts", random.Random(given.seed), given.cuts, given.unsynced)
    print(f"acknowledged {account.num_acknowledged}, backups {sum(c.is_done for c in account.copies.values())}")
    print(f"file operations {kinds.total()}: {dict(kinds)}")
    print(f"cuts {len(losses)}, with a loss {sum(map(bool, losses))}, {time.monotonic() - start:.0f} s")
    print("\n".join(sorted({fault for faults in losses for fault in faults})[:5]))


if __name__ == "__main__":
    main()
