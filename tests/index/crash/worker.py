"""The process that is to die: an index, and clients that work on it from threads of their own.

    python -m tests.index.crash.worker FOLDER LEDGER SEED [--kind compact] [--copies FOLDER] [--steps N]
        [--synchronous NORMAL] [--checkpoint-bytes N]

Without steps it works until it is killed; with them it ends as if killed, when every client has made so many or was refused.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Final

from rankone.index import (
    DEFAULT,
    AnyIndex,
    Indexes,
    IndexProblem,
    IndexUnavailable,
    Item,
    Spec,
    compiled,
    database,
    writer,
)
from rankone.index.spec import Kind
from tests.index.crash.clients import Client, Refused, run_clients
from tests.index.crash.copies import Copier
from tests.index.crash.ledger import Ledger, State

DIM: Final = 3000
"""6 KB a vector: more than a page, so that it overflows into others."""
MODEL: Final = "a" * 64
NUM_CLIENTS: Final = 4
OPENING: Final = "opening"
READY: Final = "ready"
"""The index is open, and the clients start."""


class Direct:
    """An index in this process, as a client sees it."""

    def __init__(self, index: AnyIndex) -> None:
        self._index = index

    def put(self, items: Sequence[Item]) -> int:
        try:
            return self._index.put(items)
        except IndexProblem as problem:
            raise Refused from problem

    def delete(self, ids: Sequence[str], where: Mapping[str, Any] | None) -> int:
        try:
            return self._index.submit_delete(ids, compiled(where) if where else None).result().sequence
        except IndexProblem as problem:
            raise Refused from problem

    def nearest(self, item: Item, k: int) -> list[tuple[str, Mapping[str, Any]]]:
        try:
            (hits,) = self._index.search(item.vector[None], k)
        except IndexUnavailable as problem:  # a database that was killed
            raise Refused from problem
        return [(hit.id, hit.metadata) for hit in hits]


def open_indexes(folder: Path, kind: Kind) -> Indexes:
    """The folder with an index that keeps all that can be kept of an item."""
    indexes = Indexes(folder)
    indexes.create(DEFAULT, Spec(MODEL, DIM, kind=kind, thumbnails=True))
    return indexes


def versions(index: AnyIndex) -> State:
    """Of every item that is there."""
    return {item.id: int(item.metadata["version"]) for _, item in index.page(1 << 30)}


def work(
    folder: Path,
    ledger_path: Path,
    seed: str,
    kind: Kind,
    copies: Path | None,
    steps: int | None,
    tell: Callable[[str], object],
) -> None:
    tell(OPENING)
    indexes, ledger = open_indexes(folder, kind), Ledger(ledger_path)
    index = indexes.open(DEFAULT)
    state = versions(index)
    ledger.settle(state)
    clients = [Client(f"c{number}", Direct(index), ledger, state, seed, DIM) for number in range(NUM_CLIENTS)]
    for client in clients:
        client.steps = client.steps if steps is None else steps
    tell(READY)
    with nullcontext() if copies is None else Copier(index.path, copies, ledger):
        run_clients(clients)
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("ledger", type=Path)
    parser.add_argument("seed")
    parser.add_argument("--kind", choices=("exact", "compact"), default="exact")
    parser.add_argument("--copies", type=Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--synchronous", choices=("FULL", "NORMAL"), default="FULL")
    parser.add_argument("--checkpoint-bytes", type=int)
    given = parser.parse_args()
    if given.checkpoint_bytes is not None:
        writer._CHECKPOINT_BYTES = given.checkpoint_bytes  # type: ignore[misc]
    if given.synchronous == "NORMAL":
        database.DURABLE["synchronous"] = 1
    work(given.folder, given.ledger, given.seed, given.kind, given.copies, given.steps, partial(print, flush=True))


if __name__ == "__main__":
    main()
