"""What is found after a restart, held against the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np

from rankone.index import DEFAULT, AnyIndex, Indexes, Item
from tests.index.crash.ledger import Account, State, owner_of
from tests.index.crash.worker import versions

Content = Callable[[str, int], Item]


def audit(folder: Path, account: Account, content: Content) -> tuple[State, list[str]]:
    """Opens the indexes in `folder`: the versions that are there, and every way in which they are not as they must be.

    `content` makes an item from its id and version.
    """
    with closing(Indexes(folder)) as indexes:
        return audit_index(indexes.open(DEFAULT), account, content)


def audit_index(index: AnyIndex, account: Account, content: Content) -> tuple[State, list[str]]:
    """The same of an index that is open."""
    faults = [*account.faults, *_contradictions(index)]
    found = versions(index)
    faults += _differences(index, found, content)
    return found, faults + _losses(found, account)


def _contradictions(index: AnyIndex) -> list[str]:
    """Count, listing, lookup and search must all tell the same."""
    listed = index.page(1 << 30)
    ids = [item.id for _, item in listed]
    numbers = [number for number, _ in listed]
    faults = [f"a problem is reported: {index.problem}"] if index.problem else []
    if len(set(ids)) < len(ids) or sorted(set(numbers)) != numbers:
        faults.append("an item is listed twice")
    if len(index) != len(ids):
        faults.append(f"{len(index)} are counted, {len(ids)} are listed")
    if listed:
        queries = np.stack([item.vector for _, item in listed]).astype(np.float32)
        for item_id, hits in zip(ids, index.search(queries, len(ids) + 10), strict=True):
            if sorted(hit.id for hit in hits) != sorted(ids):
                faults.append(f"{len(hits)} are found and {len(ids)} listed")
            if hits[0].id != item_id or abs(hits[0].score - 1) > 1e-3:
                faults.append(f"{item_id} does not find itself")
    return faults


def _differences(index: AnyIndex, found: State, content: Content) -> list[str]:
    """Every byte of every item."""
    faults = []
    for item_id, version in found.items():
        stored, sent = index.get(item_id), content(item_id, version)
        if stored.vector.tobytes() != sent.vector.astype(index.spec.stored).tobytes():
            faults.append(f"the vector of {item_id} is not what was sent")
        if (stored.metadata, stored.sha256, stored.thumbnail) != (sent.metadata, sent.sha256, sent.thumbnail):
            faults.append(f"{item_id} is not what was sent: {stored}")
    return faults


def _losses(found: State, account: Account) -> list[str]:
    faults = []
    for owner in sorted(account.owners | {owner_of(item_id) for item_id in found}):
        there = {item_id: version for item_id, version in found.items() if owner_of(item_id) == owner}
        outcomes = account.outcomes(owner)
        if there not in outcomes:
            faults.append(f"{owner} is not as acknowledged: {_difference(there, outcomes[0])}")
    return faults


def _difference(found: Mapping[str, int], expected: Mapping[str, int]) -> str:
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    other = sorted(key for key in found.keys() & expected.keys() if found[key] != expected[key])
    return f"missing {missing}, not expected {extra}, of another version {other}"
