"""Clients that add, replace, delete and search at random, and look at once for what was acknowledged."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol
from zlib import crc32

from rankone.index import Item
from tests.index.crash.ledger import SHARED, Ledger, Request, State, owner_of
from tests.index.oracle import unit

_NUM_ITEMS: Final = 30
_NUM_SHARED: Final = 6
_NUM_SHELVES: Final = 4


class Refused(Exception):
    """The index did not acknowledge; what became of the request is open."""


class Target(Protocol):
    """An index, however it is reached. Raises Refused where it does not answer."""

    def put(self, items: Sequence[Item]) -> int: ...
    def delete(self, ids: Sequence[str], where: Mapping[str, Any] | None) -> int: ...
    def nearest(self, item: Item, k: int) -> list[tuple[str, Mapping[str, Any]]]: ...


def content(item_id: str, version: int, dim: int) -> Item:
    """All of an item, made from its id and version alone."""
    seed = crc32(f"{item_id}/{version}".encode())
    metadata = {"owner": owner_of(item_id), "shelf": shelf_of(item_id), "version": version, "note": "n" * (seed % 500)}
    return Item(item_id, unit(1, dim, seed)[0], metadata, f"{seed:064x}", f"{seed}".encode() * (seed % 300 + 1))


def shelf_of(item_id: str) -> int:
    return int(item_id.split("-")[1]) % _NUM_SHELVES


class Client(threading.Thread):
    """One client: its own items, and now and then one of those that all share, unless `shares` is not set.

    Ends when it is refused, or after `steps`.
    """

    def __init__(self, name: str, target: Target, ledger: Ledger, state: State, seed: str, dim: int) -> None:
        super().__init__(daemon=True)
        self.name, self.steps, self.shares = name, 1 << 30, True
        self._target, self._ledger, self._dim, self._seed = target, ledger, dim, seed
        self._draw = random.Random(f"{seed} {name}")
        self._state = {item_id: version for item_id, version in state.items() if owner_of(item_id) == name}

    def run(self) -> None:
        try:
            for step in range(self.steps):
                self._step(f"{self._seed} {self.name} {step}")
        except Refused:
            return
        except Exception as error:
            self._ledger.fault(f"{self.name}: {type(error).__name__}: {error}")

    def _step(self, number: str) -> None:
        request, where = self._drawn()
        self._ledger.begin(number, request)
        puts = [
            content(item_id, version, self._dim) for item_id, version in request.changes.items() if version is not None
        ]
        ids = () if where else [item_id for item_id, version in request.changes.items() if version is None]
        sequence = self._target.put(puts) if puts else self._target.delete(ids, where)
        self._ledger.acknowledge(number, sequence)
        if request.owner != SHARED:
            self._state = request.applied_to(self._state)
            self._look_for(request)

    def _drawn(self) -> tuple[Request, dict[str, Any] | None]:
        draw, version = self._draw, self._draw.getrandbits(40)
        kind = draw.random()
        if kind < 0.15 and self.shares:
            return Request(
                SHARED, {f"{SHARED}-{draw.randrange(_NUM_SHARED)}": draw.choice([version, version, None])}
            ), None
        if kind < 0.2:
            shelf = draw.randrange(_NUM_SHELVES)
            gone = [item_id for item_id in self._state if shelf_of(item_id) == shelf]
            return Request(self.name, dict.fromkeys(gone)), {"owner": self.name, "shelf": shelf}
        ids = [f"{self.name}-{number}" for number in draw.sample(range(_NUM_ITEMS), draw.randint(1, 6))]
        return Request(self.name, dict.fromkeys(ids, version if kind < 0.8 else None)), None

    def _look_for(self, request: Request) -> None:
        """What was acknowledged is found, and what was deleted is not."""
        item_id, version = self._draw.choice([*request.changes.items(), ("none-0", None)])
        found = self._target.nearest(content(item_id, version or 0, self._dim), 20)
        ids = [found_id for found_id, _ in found]
        if version is not None and (not found or found[0][0] != item_id or found[0][1]["version"] != version):
            self._ledger.fault(f"{item_id} in version {version} was acknowledged and is not found first: {found[:1]}")
        if version is None and item_id in ids:
            self._ledger.fault(f"{item_id} was deleted and is found")
        if len(set(ids)) < len(ids):
            self._ledger.fault(f"a search found an item twice: {ids}")


def run_clients(clients: Iterable[Client]) -> None:
    """Runs them side by side until the last has ended."""
    running = list(clients)
    for client in running:
        client.start()
    for client in running:
        client.join()
