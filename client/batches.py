"""Any number of inputs, divided into requests that the service takes; read one request at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Generic

from rankone.client.bulk import Bulk
from rankone.client.results import Facts, Rejection, Source, Value

MAX_BYTES: Final = 32_000_000
"""Of one request, where the service takes as many: so much is lost when one has to be repeated."""
_OVERHEAD: Final = 256
"""Bytes around one input in a request, and around them all: boundary and headers of a part, or commas."""


@dataclass(frozen=True)
class Part(Generic[Source]):
    """One input as it will be sent, and its place among all inputs."""

    index: int
    source: Source
    content: bytes = field(repr=False)


@dataclass
class Batch(Generic[Source]):
    """The inputs of one request, in order, and those between them that cannot be sent."""

    parts: list[Part[Source]] = field(default_factory=list)
    rejections: list[Rejection[Source]] = field(default_factory=list)
    num_bytes: int = 0

    def __len__(self) -> int:
        return len(self.parts) + len(self.rejections)


def divide(bulk: Bulk[Source, Value], inputs: Iterable[Source], facts: Facts) -> Iterator[Batch[Source]]:
    """The inputs in order, as many to a batch as one request may hold, in number and in bytes.

    Lazy: a batch is read when it is asked for, and no input behind it but the first of the next.
    """
    max_inputs = min(bulk.max_inputs, facts.max_inputs)
    longest = facts.max_bytes - 2 * _OVERHEAD
    batch = Batch[Source]()
    for index, source in enumerate(inputs):
        part = _read(bulk, index, source, longest)
        size = len(part.content) + _OVERHEAD if isinstance(part, Part) else 0
        if len(batch) == max_inputs or (batch.parts and batch.num_bytes + size > min(MAX_BYTES, longest)):
            yield batch
            batch = Batch()
        if isinstance(part, Part):
            batch.parts.append(part)
            batch.num_bytes += size
        else:
            batch.rejections.append(part)
    if len(batch):
        yield batch


def _read(bulk: Bulk[Source, Value], index: int, source: Source, longest: int) -> Part[Source] | Rejection[Source]:
    try:
        content = bulk.write(source)
    except OSError as error:
        return Rejection(index, source, f"cannot be read: {error.strerror or error}", 0)
    if len(content) > longest:
        reason = f"{len(content):,} bytes as they are sent; the service takes {longest:,} in a request"
        return Rejection(index, source, reason, 0)
    return Part(index, source, content)
