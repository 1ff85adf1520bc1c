"""Changing the metadata of an item that is stored, by a JSON merge patch (RFC 7396)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from rankone.index.errors import IndexDamaged, MetadataTooLong, UnknownItem
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
