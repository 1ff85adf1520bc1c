"""What clients asked for and what was acknowledged to them, on disk before they go on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, combinations, permutations
from pathlib import Path
from typing import Any, Final

SHARED: Final = "shared"
"""Owner of the items that all clients change, one at a time. Every other item is changed by one client alone."""

State = dict[str, int]
"""The version of every item that is there."""


def owner_of(item_id: str) -> str:
    return item_id.partition("-")[0]


@dataclass
class Request:
    """Versions to put by id, None to delete; once acknowledged, the sequence number it was given."""

    owner: str
    changes: dict[str, int | None]
    sequence: int | None = None

    def applied_to(self, state: Mapping[str, int]) -> State:
        merged = {**state, **self.changes}
        return {item_id: version for item_id, version in merged.items() if version is not None}


@dataclass
class Copying:
    """A backup: the last change acknowledged before it was begun, and whether it was told to be there."""

    since: int
    is_done: bool = False


class Ledger:
    """Writes lines that survive a kill: each is synced before the call returns. A last line that is not whole is cut off."""

    def __init__(self, path: Path) -> None:
        lines = path.read_bytes() if path.exists() else b""
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.ftruncate(self._file, lines.rfind(b"\n") + 1)

    def begin(self, number: str, request: Request) -> None:
        """Before anything is sent."""
        self._write(number=number, owner=request.owner, changes=request.changes)

    def acknowledge(self, number: str, sequence: int) -> None:
        self._write(acknowledged=number, sequence=sequence)

    def copy(self, name: str) -> None:
        """Before a backup is begun."""
        self._write(copying=name)

    def copied(self, name: str) -> None:
        """A backup is there."""
        self._write(copied=name)

    def fault(self, text: str) -> None:
        """Something that a client saw and that must not be."""
        self._write(fault=text)

    def settle(self, state: State) -> None:
        """What was found after a restart; whatever was in flight is decided."""
        self._write(settled=state)

    def close(self) -> None:
        os.close(self._file)

    def _write(self, **entry: Any) -> None:
        os.write(self._file, json.dumps(entry).encode() + b"\n")
        os.fsync(self._file)


@dataclass
class Account:
    """What a ledger says of the time since its items were last settled."""

    settled: State = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    copies: dict[str, Copying] = field(default_factory=dict)

    @classmethod
    def of(cls, lines: bytes) -> Account:
        """From the bytes of a ledger; a last line that is not whole was never relied on."""
        account, by_number = cls(), dict[str, Request]()
        for line in lines.split(b"\n")[:-1]:
            entry = json.loads(line)
            if "settled" in entry:
                account, by_number = account.settled_as(entry["settled"]), {}
            elif "fault" in entry:
                account.faults.append(entry["fault"])
            elif "acknowledged" in entry:
                by_number[entry["acknowledged"]].sequence = entry["sequence"]
            elif "copying" in entry:
                account.copies[entry["copying"]] = Copying(account.sequence)
            elif "copied" in entry:
                account.copies[entry["copied"]].is_done = True
            else:
                request = by_number[entry["number"]] = Request(entry["owner"], entry["changes"])
                account.requests.append(request)
        return account

    def settled_as(self, found: State) -> Account:
        """From here on, `found` is what there is; it was one of the outcomes."""
        faults = [
            f"{owner} was found as {_of(owner, found)}"
            for owner in self.owners
            if _of(owner, found) not in self.outcomes(owner)
        ]
        return Account(found, [], self.faults + faults)

    @property
    def owners(self) -> set[str]:
        return {request.owner for request in self.requests} | {owner_of(item_id) for item_id in self.settled}

    def at(self, sequence: int) -> Account:
        """The account as it was when this was the last change on disk, but for what a client had seen."""
        return Account(self.settled, [request for request in self.requests if (request.sequence or 0) <= sequence])

    @property
    def sequence(self) -> int:
        """Of the last change that was acknowledged."""
        return max((request.sequence or 0 for request in self.requests), default=0)

    @property
    def num_acknowledged(self) -> int:
        return sum(request.sequence is not None for request in self.requests)

    def outcomes(self, owner: str) -> list[State]:
        """Every state in which this owner's items may be: all that was acknowledged, and of what was in flight any part in any
        order, each request wholly or not at all. The first is without any of it.

        A client waits for each answer, so its own requests are in order and one is in flight at most; those of several clients
        are ordered by their sequence numbers, and change one item each.
        """
        requests = [request for request in self.requests if request.owner == owner]
        done = [request for request in requests if request.sequence is not None]
        if owner == SHARED:
            done.sort(key=lambda request: request.sequence or 0)
        start = _of(owner, self.settled)
        pending = [request for request in requests if request.sequence is None]
        return [_fold(start, [*done, *some]) for some in _arrangements(pending)]


def _of(owner: str, state: State) -> State:
    return {item_id: version for item_id, version in state.items() if owner_of(item_id) == owner}


def _fold(state: State, requests: Iterable[Request]) -> State:
    for request in requests:
        state = request.applied_to(state)
    return state


def _arrangements(requests: list[Request]) -> Iterator[tuple[Request, ...]]:
    sizes = range(len(requests) + 1)
    chosen = chain.from_iterable(combinations(requests, size) for size in sizes)
    return chain.from_iterable(permutations(some) for some in chosen)
