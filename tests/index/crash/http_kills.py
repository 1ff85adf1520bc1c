"""kill -9 of a running service at random moments, over and over on the same folder, as its clients see it.

python -m tests.index.crash.http_kills [--kills 100] [--seed 0] [--kind compact]
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks.bundles import tiny_bundle
from rankone.index import DEFAULT, Indexes, Kind, Spec
from tests.index.crash.audit import audit
from tests.index.crash.kills import Figures
from tests.index.crash.ledger import Account, Ledger
from tests.service.over_http import DIM, clients_of, sent
from tests.services import Process

_LONGEST_S: Final = 1.0
_EARLY: Final = 6
"""One kill in so many comes while the service starts."""


def run(folder: Path, kills: int, seed: int, kind: Kind) -> Figures:
    """Kills a service so many times; every time, a copy of what is left is opened and audited."""
    figures, draw, ledger = Figures(), random.Random(seed), Ledger(folder / "ledger")
    bundle = tiny_bundle(folder / "tiny")
    indexes = Indexes(folder / "index")
    indexes.create(DEFAULT, Spec(bundle.fingerprint, DIM, kind=kind))
    indexes.close()
    for number in range(kills):
        process = Process(bundle.path, folder / "index", workers=1, engine="onnx")  # no trial of engines first
        is_early = number % _EARLY == _EARLY - 1
        if is_early:
            time.sleep(draw.uniform(1, 4))
        else:
            process.ready().close()
            clients = clients_of(process.url, ledger, folder, f"{seed}/{number}")
            for client in clients:
                client.start()
            clients[0].join(draw.uniform(0, _LONGEST_S))
        process.end(signal.SIGKILL)
        process.close()
        for client in [] if is_early else clients:
            client.join()
        figures.kills, figures.while_opening = number + 1, figures.while_opening + is_early
        _check(folder, ledger, figures)
    ledger.close()
    return figures


def _check(folder: Path, ledger: Ledger, figures: Figures) -> None:
    account = Account.of((folder / "ledger").read_bytes())
    figures.with_log += any(path.stat().st_size for path in (folder / "index").glob("*-wal"))
    shutil.copytree(folder / "index", folder / "copy")
    found, faults = audit(folder / "copy", account, sent)
    shutil.rmtree(folder / "copy")
    figures.acknowledged += account.num_acknowledged
    figures.in_flight += len(account.requests) - account.num_acknowledged
    figures.items, figures.faults = len(found), figures.faults + faults
    ledger.settle(found)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=("exact", "compact"), default="exact")
    given = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        figures = run(Path(folder), given.kills, given.seed, given.kind)
    print(figures.lines())
    print(f"{'seconds':18} {time.monotonic() - start:.0f}")
    sys.exit(bool(figures.faults))


if __name__ == "__main__":
    main()
