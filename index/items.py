"""An item of an index, and the same as a row of its file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from rankone.index.schema import Spec


@dataclass(frozen=True)
class Item:
    """One image of the index: its id, its embedding (dim,) and what its owner wrote to it.

    `sha256` is of the encoded image, where there was one; `thumbnail` is a small JPEG of it, where the index keeps them.
    """

    id: str
    vector: npt.NDArray[np.floating] = field(repr=False)
    metadata: dict[str, Any] = field(default_factory=dict)
    sha256: str | None = None
    thumbnail: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Record:
    """A row, but for its sequence number: what the checksum covers, and the checksum."""

    id: str
    metadata: str
    sha256: str | None
    fingerprint: str
    vector: bytes = field(repr=False)
    thumbnail: bytes | None = field(repr=False)
    checksum: bytes

    @property
    def is_whole(self) -> bool:
        """Whether the checksum is that of the rest, and nothing has become of another type, which it does not cover."""
        texts, blobs = (
            (self.id, self.metadata, self.fingerprint, self.sha256 or ""),
            (self.vector, self.thumbnail or b""),
        )
        if not (all(isinstance(part, str) for part in texts) and all(isinstance(part, bytes) for part in blobs)):
            return False
        return self.checksum == _checksum(
            self.id, self.metadata, self.sha256, self.fingerprint, self.vector, self.thumbnail
        )

    def item(self, spec: Spec) -> Item:
        """What was added."""
        vector = np.frombuffer(self.vector, spec.stored)
        return Item(self.id, vector, orjson.loads(self.metadata), self.sha256, self.thumbnail)


def record_of(item: Item, spec: Spec) -> Record:
    """The item as it is kept: its vector in the type of the index, its metadata as JSON."""
    metadata = orjson.dumps(item.metadata).decode()
    vector = np.asarray(item.vector).astype(spec.stored).tobytes()
    thumbnail = item.thumbnail if spec.thumbnails else None
    checksum = _checksum(item.id, metadata, item.sha256, spec.fingerprint, vector, thumbnail)
    return Record(item.id, metadata, item.sha256, spec.fingerprint, vector, thumbnail, checksum)


def _checksum(*parts: str | bytes | None) -> bytes:
    """16 bytes of the SHA-256 of the parts, each with its length before it, so that none can lend to its neighbour."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part or b""
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()[:16]
