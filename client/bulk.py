"""The routes that take many inputs: how one input is written, and the request for several of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic

import httpx
import numpy as np
import numpy.typing as npt
import orjson

from rankone.client.call import Call, Json, json_body, json_of, path_of
from rankone.client.results import Metadata, Neighbour, NewItem, Prediction, Source, Value, Vector
from rankone.client.routes import SearchOptions, neighbours_of

Image = bytes | Path

_IMAGES: Final = 16
"""Images in one request: enough to fill a batch of the engine, few enough to share it with others."""
_MANY: Final = 1000
"""Vectors and ids in one request, where the service takes as many; those of vectors also end at `batches.MAX_BYTES`."""


@dataclass(frozen=True)
class Bulk(Generic[Source, Value]):
    """A route that takes many inputs, at most `max_inputs` of them at once.

    `write` turns one into the bytes that are sent, and raises OSError where it cannot be read; `call` is the request for
    several, with one value for each.
    """

    kind: str
    max_inputs: int
    write: Callable[[Source], bytes]
    call: Callable[[Sequence[bytes]], Call[Sequence[Value]]]


def embed() -> Bulk[Image, npt.NDArray[np.float32]]:
    """`POST /embed`, in and out as raw bytes."""

    def call(images: Sequence[bytes]) -> Call[Sequence[npt.NDArray[np.float32]]]:
        def read(response: httpx.Response) -> Sequence[npt.NDArray[np.float32]]:
            rows = np.asarray(np.load(io.BytesIO(response.content), allow_pickle=False), np.float32)
            return _as_many(list(rows), images)

        return Call("POST", "/embed", read, {"files": _parts(images), "headers": {"accept": "application/x-npy"}})

    return Bulk("image", _IMAGES, _read, call)


def classify(top_k: int) -> Bulk[Image, list[Prediction]]:
    """`POST /classify`."""

    def call(images: Sequence[bytes]) -> Call[Sequence[list[Prediction]]]:
        def read(response: httpx.Response) -> Sequence[list[Prediction]]:
            rows = _as_many(json_of(response)["predictions"], images)
            return [[Prediction(e["label"], e["index"], e["probability"]) for e in row] for row in rows]

        return Call("POST", "/classify", read, {"files": _parts(images), "params": {"top_k": top_k}})

    return Bulk("image", _IMAGES, _read, call)


def search_images(index: str, options: SearchOptions) -> Bulk[Image, list[Neighbour]]:
    """`POST /indexes/{index}/search` by images."""
    return Bulk("image", _IMAGES, lambda image: orjson.dumps(_base64(_read(image))), _search(index, "images", options))


def search_vectors(index: str, options: SearchOptions) -> Bulk[Vector, list[Neighbour]]:
    """The same by vectors (dim,)."""
    return Bulk("vector", _MANY, _vector, _search(index, "vectors", options))


def search_ids(index: str, options: SearchOptions) -> Bulk[str, list[Neighbour]]:
    """The same by the ids of items in the index."""
    return Bulk("id", _MANY, orjson.dumps, _search(index, "ids", options))


def add(index: str, max_inputs: int = _IMAGES) -> Bulk[NewItem, str]:
    """`POST /indexes/{index}/items`. Every item has its id, so that a request sent twice adds it once."""

    def call(items: Sequence[bytes]) -> Call[Sequence[str]]:
        body = json_body({"items": [orjson.Fragment(item) for item in items]})
        return Call("POST", path_of(index, "items"), lambda r: _as_many(json_of(r)["ids"], items), body)

    return Bulk("item", max_inputs, _item, call)


def add_vectors(index: str) -> Bulk[NewItem, str]:
    """The same for items that are all vectors, more of them at once."""
    return add(index, _MANY)


def new_items(
    sources: Iterable[Image] | Iterable[Vector], ids: Iterable[str] | None, metadata: Iterable[Metadata] | None
) -> Iterator[NewItem]:
    """Items to add, each with its id and metadata where they are given.

    Raises:
        ValueError: not as many ids or metadata as sources.
    """
    given: dict[str, Iterable[Any]] = {"source": sources}
    given |= {name: values for name, values in (("id", ids), ("metadata", metadata)) if values is not None}
    lengths = {len(values) for values in given.values() if isinstance(values, Sized)}
    if len(lengths) > 1:  # said before anything is sent, where it can be known
        raise ValueError(f"{' and '.join(given)} are of different lengths: {sorted(lengths)}")
    for values in zip(*given.values(), strict=True):
        yield NewItem(**dict(zip(given, values, strict=True)))


def _search(
    index: str, name: str, options: SearchOptions
) -> Callable[[Sequence[bytes]], Call[Sequence[list[Neighbour]]]]:
    def call(queries: Sequence[bytes]) -> Call[Sequence[list[Neighbour]]]:
        def read(response: httpx.Response) -> Sequence[list[Neighbour]]:
            return [neighbours_of(hits) for hits in _as_many(json_of(response)["results"], queries)]

        body = {**options, name: [orjson.Fragment(query) for query in queries]}
        return Call("POST", path_of(index, "search"), read, json_body(body))

    return call


def _read(image: Image) -> bytes:
    return image if isinstance(image, bytes) else image.read_bytes()


def _base64(image: bytes) -> str:
    return base64.b64encode(image).decode()


def _vector(vector: Vector) -> bytes:
    return orjson.dumps(np.ascontiguousarray(vector, np.float32), option=orjson.OPT_SERIALIZE_NUMPY)


def _item(item: NewItem) -> bytes:
    source: Json
    if isinstance(item.source, np.ndarray):
        source = {"vector": orjson.Fragment(_vector(item.source))}
    else:
        source = {"image": _base64(_read(item.source))}
    return orjson.dumps({"id": item.id, "metadata": item.metadata, **source})


def _parts(images: Sequence[bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", ("image", image)) for image in images]


def _as_many(values: Sequence[Any], inputs: Sequence[bytes]) -> Sequence[Any]:
    if len(values) != len(inputs):
        raise ValueError(f"{len(values)} values for {len(inputs)} inputs")
    return values
