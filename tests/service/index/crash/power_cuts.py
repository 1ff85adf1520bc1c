"""Power cuts at random moments of a recorded run.

python -m tests.service.index.crash.power_cuts [--cuts 1000] [--seed 0] [--synchronous NORMAL]
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

from tests.service.index.crash.audit import audit
from tests.service.index.crash.clients import content
from tests.service.index.crash.disk import Disk, built, environment, events
from tests.service.index.crash.ledger import Account
from tests.service.index.crash.worker import DIM


class Recorded:
    """A worker's run on files under `root`, and its record."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._library = library
        self.root, self.record = folder / "root", folder / "record"
        self.root.mkdir()

    def work(self, *flags: str, seed: str = "0", **failures: str) -> None:
        """A worker on the index in `deep/index`, with its ledger beside it."""
        where = [str(self.root / "deep" / "index"), str(self.root / "ledger"), seed]
        self.run("-m", "tests.service.index.crash.worker", "--checkpoint-bytes", "300000", *flags, *where, **failures)

    def run(self, *arguments: str, **failures: str) -> None:
        """Any Python program."""
        recorded = environment(self._library, self.root, self.record, **failures)
        subprocess.run([sys.executable, *arguments], env=recorded, stdout=subprocess.DEVNULL, check=True)

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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cuts", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--synchronous", choices=("FULL", "NORMAL"), default="FULL")
    given = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recorded = Recorded(built(folder), folder)
        recorded.work("--steps", str(given.steps), "--synchronous", given.synchronous, seed=str(given.seed))
        kinds = Counter(event.kind for event in events(recorded.record))
        account = Account.of((recorded.root / "ledger").read_bytes())
        losses = recorded.losses(folder / "cuts", random.Random(given.seed), given.cuts)
    print(f"acknowledged {account.num_acknowledged}, file operations {kinds.total()}: {dict(kinds)}")
    print(f"cuts {len(losses)}, with a loss {sum(map(bool, losses))}, {time.monotonic() - start:.0f} s")
    print("\n".join(sorted({fault for faults in losses for fault in faults})[:5]))


if __name__ == "__main__":
    main()
