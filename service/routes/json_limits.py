"""What JSON may hold, told from its bytes before it is parsed: parsed, a list of nothing takes twenty times its length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rankone.index.filters import MAX_TERMS, MAX_VALUES
from rankone.service.routes.problems import Problem
from rankone.service.settings import Settings

MAX_ENTRIES: Final = 10_000
"""Of a list in a request: images, items and queries are limited further by the settings; ids to delete are not."""

_MARKS_PER_ENTRY: Final = 100
"""Brackets or commas of an id or of another short text."""
_MARKS_PER_ITEM: Final = 300
"""Those around its metadata: its own, and up to 255 in its id."""


@dataclass(frozen=True)
class JsonLimits:
    """Brackets and commas are counted in strings too, so the limits leave room for metadata of nothing else."""

    max_containers: int
    max_values: int

    @classmethod
    def of(cls, settings: Settings, dim: int) -> JsonLimits:
        """What the largest request within the settings holds, its vectors having `dim` numbers."""
        items = settings.max_images * (settings.max_metadata_bytes + _MARKS_PER_ITEM)
        marks = max(items, MAX_ENTRIES * _MARKS_PER_ENTRY)
        return cls(marks, max(marks, MAX_TERMS * MAX_VALUES) + settings.max_images * dim)

    def check(self, data: bytes) -> None:
        """Raises a Problem of 413 where there are more."""
        if data.count(b"[") + data.count(b"{") > self.max_containers:
            raise Problem(413, f"the JSON has more than {self.max_containers:,} lists and objects")
        if data.count(b",") > self.max_values:
            raise Problem(413, f"the JSON has more than {self.max_values:,} values")
