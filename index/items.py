"""Items, and the records that are kept of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from rankone.index.spec import Spec


@dataclass(frozen=True)
class Item:
    """One image of the index: its id, its embedding (dim,) and the metadata that its owner gave it.

    `sha256` is that of the encoded image, if there was one; `thumbnail` is a small JPEG, if the index keeps thumbnails.
    """

    id: str
    vector: npt.NDArray[np.floating] = field(repr=False)
    metadata: dict[str, Any] = field(default_factory=dict)
    sha256: str | None = None
    thumbnail: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Record:
    """An item as it is kept: everything that the checksum covers, and the checksum."""

    id: str
    metadata: str
    sha256: str | None
    fingerprint: str
    vector: bytes = field(repr=False)
    thumbnail: bytes | None = field(repr=False)
    checksum: bytes

    @property
    def is_intact(self) -> bool:
        """Whether the checksum matches. It does not cover types, so those are compared too."""
        texts = (self.id, self.metadata, self.sha256, self.fingerprint)
        blobs = (self.vector, self.thumbnail)
        has_types = {*map(type, texts)} <= {str, type(None)} and {*map(type, blobs)} <= {bytes, type(None)}
        return has_types and self.checksum == _checksum(*texts, *blobs)

    def item(self, spec: Spec) -> Item:
        """The item that was added."""
        vector = np.frombuffer(self.vector, spec.stored)
        return Item(self.id, vector, orjson.loads(self.metadata), self.sha256, self.thumbnail)


Row = tuple[int, Record]
"""A record with its sequence number."""


class Summary(NamedTuple):
    """A record without its vector and thumbnail, a few hundred bytes, with its sequence number."""

    sequence: int
    id: str
    metadata: str
    sha256: str | None
    checksum: bytes


def record_of(item: Item, spec: Spec) -> Record:
    """The item as it is kept: its vector in the type of the index, its metadata as JSON."""
    metadata = orjson.dumps(item.metadata).decode()
    vector = np.asarray(item.vector).astype(spec.stored).tobytes()
    thumbnail = item.thumbnail if spec.thumbnails else None
    checksum = _checksum(item.id, metadata, item.sha256, spec.fingerprint, vector, thumbnail)
    return Record(item.id, metadata, item.sha256, spec.fingerprint, vector, thumbnail, checksum)


def _checksum(*parts: str | bytes | None) -> bytes:
    """16 bytes of the SHA-256 of the parts, each preceded by its length so that bytes cannot move between parts unnoticed."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part or b""
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()[:16]
