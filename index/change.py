"""Changes of an index, and what they did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rankone.index.errors import IndexDamaged, MetadataTooLong, UnknownItem
from rankone.index.filters import Filter
from rankone.index.items import Record, record_of
from rankone.index.spec import Spec


@dataclass(frozen=True)
class Patch:
    """A JSON merge patch (RFC 7396) for the metadata of the item `id`, which then has at most `max_bytes` as JSON."""

    id: str
    metadata: dict[str, Any]
    max_bytes: int

    def apply(self, record: Record | None, spec: Spec) -> Record:
        """The record with the patched metadata.

        Raises:
            UnknownItem: there is no record.
            IndexDamaged: the record is damaged, and would get a checksum that hides it.
            MetadataTooLong: as the name says.
        """
        if record is None:
            raise UnknownItem(f"there is no item {self.id!r}")
        if not record.is_intact:
            raise IndexDamaged(f"the item {self.id!r} is damaged on disk: add it again, or restore a backup")
        item = record.item(spec)
        patched = record_of(replace(item, metadata=_merged(item.metadata, self.metadata)), spec)
        if (length := len(patched.metadata.encode())) > self.max_bytes:
            raise MetadataTooLong(
                f"the metadata of {self.id!r} would have {length:,} bytes; at most {self.max_bytes:,} are accepted"
            )
        return patched


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


def _merged(target: Any, patch: Any) -> Any:
    """As RFC 7396, 2, has it: objects are merged, null removes a field, anything else replaces what was there."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged
