"""kill -9 of a PostgreSQL server, and of two services that write to it, at random moments.

python -m tests.index.postgres.kills [--kills 60] [--seed 0] [--kind compact]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import psycopg

from rankone.index import DEFAULT, Spec
from rankone.index.postgres import PostgresIndexes
from rankone.index.spec import Kind
from tests.index.crash.audit import audit_index
from tests.index.crash.clients import Client, content, run_clients
from tests.index.crash.ledger import Account, Ledger
from tests.index.crash.worker import DIM, MODEL, Direct, versions
from tests.postgres import Server

_PROCESSES: Final = multiprocessing.get_context("spawn")
_CONTENT: Final = partial(content, dim=DIM)
_SERVICES: Final = 2
_CLIENTS: Final = 2
_LONGEST_S: Final = 1.0
_VICTIMS: Final = ("server", "one service", "both services", "server")


@dataclass
class Figures:
    """What a run of kills came to."""

    kills: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    in_flight: int = 0
    items: int = 0
    faults: list[str] = field(default_factory=list)


def work(url: str, ledger_path: Path, seed: str, which: int, tell: Callable[[str], object]) -> None:
    """A service with clients, all of which also change the items that clients of the other one change."""
    indexes, ledger = PostgresIndexes(url, 60), Ledger(ledger_path)
    index = indexes.open(DEFAULT)
    state = versions(index)
    names = [f"s{which}c{number}" for number in range(_CLIENTS)]
    clients = [Client(name, Direct(index), ledger, state, seed, DIM) for name in names]
    tell("ready")
    run_clients(clients)
    os._exit(0)


def run(folder: Path, kills: int, seed: int, kind: Kind = "exact") -> Figures:
    """Kills so many times; every time, what is then in the database is held against what was acknowledged."""
    figures, draw, server = Figures(), random.Random(seed), Server()
    try:
        url = server.new_database()
        with closing(PostgresIndexes(url, 60)) as indexes:
            indexes.create(DEFAULT, Spec(MODEL, DIM, kind=kind, thumbnails=True))
        for number in range(kills):
            _round(server, url, folder / f"{number}", f"{seed}/{number}", draw, figures)
    finally:
        server.close()
    return figures


def _round(server: Server, url: str, folder: Path, seed: str, draw: random.Random, figures: Figures) -> None:
    folder.mkdir(parents=True)
    ledgers = [folder / f"{which}" for which in range(_SERVICES)]
    with closing(PostgresIndexes(url, 60)) as indexes:
        before = Ledger(ledgers[0])
        before.settle(versions(indexes.open(DEFAULT)))
        before.close()
    processes = []
    for which, ledger in enumerate(ledgers):
        told, tell = _PROCESSES.Pipe(duplex=False)
        processes.append(_PROCESSES.Process(target=work, args=(url, ledger, f"{seed}/{which}", which, tell.send)))
        processes[-1].start()
        tell.close()
        told.recv()
    time.sleep(draw.uniform(0, _LONGEST_S))
    victim = draw.choice(_VICTIMS)
    if victim == "server":
        server.kill()
    for process in processes[: 1 if victim == "one service" else _SERVICES]:
        if victim != "server":
            process.kill()
    time.sleep(draw.uniform(0, 0.2))
    if victim == "server":
        server.start()
        time.sleep(draw.uniform(0, 0.5))  # clients that had to wait for a connection go on
    for process in processes:
        process.kill()
        process.join()
    _wait_until_alone(url)
    account = Account.of(b"".join(ledger.read_bytes() for ledger in ledgers if ledger.exists()))
    with closing(PostgresIndexes(url, 60)) as indexes:
        found, faults = audit_index(indexes.open(DEFAULT), account, _CONTENT)
    figures.kills[victim] += 1
    figures.acknowledged += account.num_acknowledged
    figures.in_flight += len(account.requests) - account.num_acknowledged
    figures.items, figures.faults = len(found), figures.faults + faults


def _wait_until_alone(url: str) -> None:
    """Until the server has ended what the killed ones had begun."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute(query).fetchone() != (0,):
            time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=("exact", "compact"), default="exact")
    given = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        figures = run(Path(folder), given.kills, given.seed, given.kind)
    for name, value in vars(figures).items():
        print(f"{name.replace('_', ' '):14} {dict(value) if isinstance(value, Counter) else value}")
    print(f"{'seconds':14} {time.monotonic() - start:.0f}")
    sys.exit(bool(figures.faults))


if __name__ == "__main__":
    main()
