"""What a client returns, and how it is read from the service's responses."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import httpx
import numpy as np
import numpy.typing as npt
import orjson

from rankone.client.errors import ServiceError

Json = dict[str, Any]
Embedding = npt.NDArray[np.float32]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Prediction:
    """A class with its probability."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class Neighbour:
    """An item that a search found, with its cosine similarity in [-1, 1]."""

    id: str
    score: float
    metadata: Json = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Explanation:
    """The evidence in one image: `shares` (rows, columns) and `rest`, which no location owns, add up to `score`.

    `side` is query or item. `likeness` is the cosine of an image that was sent for an item with that item. `overlay` is a PNG.
    """

    side: str
    label: str | None
    id: str | None
    likeness: float | None
    score: float
    rest: float
    shares: npt.NDArray[np.float32] = field(repr=False)
    overlay: bytes | None = field(default=None, repr=False)

    @classmethod
    def from_json(cls, entry: Json) -> Self:
        overlay = entry.get("overlay")
        return cls(
            side=entry["side"],
            label=entry.get("label"),
            id=entry.get("id"),
            likeness=entry.get("likeness"),
            score=entry["score"],
            rest=entry["rest"],
            shares=np.asarray(entry["shares"], np.float32),
            overlay=None if overlay is None else base64.b64decode(overlay),
        )


@dataclass(frozen=True)
class Item:
    """An item of an index, with its embedding (dim,) if it was requested."""

    id: str
    metadata: Json
    vector: Embedding | None = field(default=None, repr=False)

    @classmethod
    def from_json(cls, entry: Json) -> Self:
        vector = entry.get("vector")
        return cls(entry["id"], entry["metadata"], None if vector is None else np.asarray(vector, np.float32))


@dataclass(frozen=True)
class IndexDescription:
    """An index with all its `properties`; `count` is None if the index belongs to another model."""

    name: str
    count: int | None
    properties: Json = field(repr=False)

    @classmethod
    def from_json(cls, entry: Json) -> Self:
        return cls(entry["name"], entry["count"], entry)


@dataclass(frozen=True)
class Model:
    """A model with all its `properties`; `state` is served, available or broken. A broken one may lack a version."""

    name: str
    version: str | None
    state: str
    properties: Json = field(repr=False)

    @classmethod
    def from_json(cls, entry: Json) -> Self:
        return cls(entry["model"], entry["version"], entry["state"], entry)


@dataclass(frozen=True)
class Limits:
    """What a request may hold, and the dimension of the embeddings."""

    dim: int
    max_inputs: int
    max_bytes: int

    @classmethod
    def from_json(cls, info: Json) -> Self:
        return cls(info["dim"], info["limits"]["max_images"], info["limits"]["max_request_bytes"])


def to_explanations(body: Json) -> list[Explanation]:
    """One explanation for each image."""
    return [Explanation.from_json(entry) for entry in body["explanations"]]


def to_metadata(body: Any) -> Json:
    """The metadata of a changed item."""
    return dict(body["metadata"])


def to_page(body: Json) -> tuple[list[Item], str | None]:
    """The items of a page, and the cursor of the next page, if there is one."""
    return [Item.from_json(entry) for entry in body["items"]], body["next_cursor"]


def parse_response(response: httpx.Response, parse: Callable[[Any], Result]) -> Result:
    """Decodes a response, an array or JSON, and parses it; raises ServiceError if it is not as expected."""
    try:
        if response.headers.get("content-type") == "application/x-npy":
            return parse(np.load(io.BytesIO(response.content), allow_pickle=False))
        return parse(orjson.loads(response.content))
    except (LookupError, TypeError, ValueError, EOFError) as error:
        where = f"{response.request.method} {response.request.url.path}"
        raise ServiceError(response.status_code, f"the answer to {where} cannot be read: {error!r}") from error
