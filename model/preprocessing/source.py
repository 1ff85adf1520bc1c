"""A file as it is handed to Pillow, after its structure was walked through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Source:
    """What of a file its pixels depend on."""

    kind: str
    """A name of `kinds`."""
    data: bytes
    """The file, without the metadata over which Pillow stumbles."""
    scale: int = 1
    """By how much a JPEG is reduced while it is decoded: 1, 2, 4 or 8."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """Metadata that was taken out of `data`, under Pillow's names: `exif`, `xmp`, `icc_profile`.
    Also `bits`: of the 16 of a sample, those that are used."""
    is_whole: bool = True
    """False where the file breaks off before its end."""
    has_all_scans: bool = True
    """False where a JPEG that breaks off lacks more than the end of its last scan."""
