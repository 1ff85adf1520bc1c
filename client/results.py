"""What goes into a client and what comes out of it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

Metadata = dict[str, Any]
Vector = npt.NDArray[np.floating]

Source = TypeVar("Source")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Answer(Generic[Source, Value]):
    """What came of the input at `index` of a stream."""

    index: int
    source: Source
    value: Value


@dataclass(frozen=True)
class Rejection(Generic[Source]):
    """The input at `index` of a stream that cannot be used, and why; status 0 where it was never sent."""

    index: int
    source: Source
    reason: str
    status: int


@dataclass(frozen=True)
class Prediction:
    """A class with its probability."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class Neighbour:
    """An item that a search found, with its cosine in [-1, 1]."""

    id: str
    score: float
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True)
class NewItem:
    """An item to add: an image, or its embedding (dim,), under an id, which is made up if absent."""

    source: bytes | Path | Vector
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True)
class Item:
    """An item of an index; its embedding (dim,) where that was asked for."""

    id: str
    metadata: Metadata
    vector: npt.NDArray[np.float32] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class IndexDescription:
    """An index; no count where it cannot be used with the model being served. `properties` is all the service says."""

    name: str
    count: int | None
    properties: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Model:
    """A model that the service has: served, available, or broken, then perhaps without a version.

    `properties` is all the service says of it.
    """

    name: str
    version: str | None
    state: str
    properties: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Facts:
    """What a client must know of its service to divide inputs into requests."""

    dim: int
    max_inputs: int
    max_bytes: int
