"""Changes of an index, and what they did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rankone.index.filters import Filter
from rankone.index.items import Record
from rankone.index.patches import Patch


@dataclass(frozen=True)
class Change:
    """Removes the items that have one of these ids or match the filter, then stores records, replacing equal ids.

    A patched item is stored again, with its new metadata.
    """

    records: Sequence[Record] = field(default=(), repr=False)
    ids: Sequence[str] = ()
    where: Filter | None = None
    patches: Sequence[Patch] = ()


@dataclass(frozen=True)
class Effect:
    """What a change did: the ids that it removed, and the records that it stored, with their sequence numbers."""

    sequence: int
    removed: Sequence[str] = ()
    numbers: Sequence[int] = ()
    records: Sequence[Record] = field(default=(), repr=False)
