"""The routes that take many inputs, and the division of any number of inputs into requests for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Generic, TypeVar

import numpy as np
import orjson

from rankone.client import inputs
from rankone.client.errors import Fault, ServiceError
from rankone.client.inputs import Image, NewItem, SearchOptions, json_body, path_of
from rankone.client.results import Embedding, Json, Limits, Neighbour, Prediction

MAX_IMAGES: Final = 16  # in a request: enough to fill a batch of the engine, few enough to share it with other clients
MAX_VECTORS: Final = 1000  # in a request; also the maximum of ids
MAX_BYTES: Final = 32_000_000  # in a request, even if the service takes more, so that repeating one costs little
_OVERHEAD: Final = 256  # bytes around each input, such as the headers of a multipart part, and around all of them

Source = TypeVar("Source")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Answer(Generic[Source, Value]):
    """The result for the input at `index` of a stream."""

    index: int
    source: Source
    value: Value


@dataclass(frozen=True)
class Rejection(Generic[Source]):
    """The input at `index` of a stream, which cannot be used, and the reason; status 0 if it was never sent."""

    index: int
    source: Source
    reason: str
    status: int


OnRejection = Callable[[Rejection[Any]], None]


@dataclass(frozen=True)
class EncodedInput(Generic[Source]):
    """The input at `index` of a stream as it will be sent, or the reason why it cannot be sent."""

    index: int
    source: Source
    content: bytes = field(repr=False)
    error: str = ""


@dataclass(frozen=True)
class BatchRoute(Generic[Source, Value]):
    """A route that takes up to `max_inputs` inputs in a request, and answers with one value for each.

    `encode` turns an input into bytes, or raises OSError or ValueError if it cannot. `body` turns the encoded inputs into
    arguments of httpx, and `parse` the decoded answer into values. `many` makes a list of a single input.
    """

    kind: str
    path: str
    encode: Callable[[Source], bytes]
    body: Callable[[Sequence[bytes]], Json]
    parse: Callable[[Any], Sequence[Value]]
    max_inputs: int = MAX_IMAGES
    many: Callable[[Any], Iterable[Any]] = inputs.many_images

    def answers(self, batch: Sequence[EncodedInput[Source]], body: Any) -> list[Answer[Source, Value]]:
        """Pairs the inputs of a request with their values; raises ValueError if the numbers differ."""
        return [Answer(entry.index, entry.source, value) for entry, value in zip(batch, self.parse(body), strict=True)]


def embed(dim: int | None = None) -> BatchRoute[Image, Embedding]:
    """`POST /embed`, answered with an array of full embeddings, or short ones of length `dim`."""
    arguments: Json = {} if dim is None else {"params": {"dim": dim}}
    body = partial(_multipart, headers={"accept": "application/x-npy"}, **arguments)
    return BatchRoute("image", "/embed", inputs.read_image, body, lambda rows: list(np.asarray(rows, np.float32)))


def classify(top_k: int) -> BatchRoute[Image, list[Prediction]]:
    """`POST /classify`."""

    def parse(body: Json) -> list[list[Prediction]]:
        return [[Prediction(e["label"], e["index"], e["probability"]) for e in row] for row in body["predictions"]]

    return BatchRoute("image", "/classify", inputs.read_image, partial(_multipart, params={"top_k": top_k}), parse)


def search(
    index: str, kind: str, encode: Callable[[Source], bytes], options: SearchOptions
) -> BatchRoute[Source, list[Neighbour]]:
    """`POST /indexes/{index}/search`; `kind` is image, vector or id, and `encode` writes such a query as JSON."""
    path, body = path_of(index, "search"), partial(_json_list, f"{kind}s", options)
    if kind == "image":
        return BatchRoute(kind, path, encode, body, to_neighbours)
    many: Callable[[Any], Iterable[Any]] = inputs.many_vectors if kind == "vector" else inputs.many_ids
    return BatchRoute(kind, path, encode, body, to_neighbours, MAX_VECTORS, many)


def to_neighbours(body: Json) -> list[list[Neighbour]]:
    """The items that a search found for each query."""
    return [[Neighbour(e["id"], e["score"], e.get("metadata", {})) for e in row] for row in body["results"]]


def to_first_neighbours(body: Json) -> list[Neighbour]:
    """The items that a search of one query found."""
    return to_neighbours(body)[0]


def add(index: str, max_inputs: int = MAX_IMAGES) -> BatchRoute[NewItem, str]:
    """`POST /indexes/{index}/items`, answered with the ids."""
    path, body = path_of(index, "items"), partial(_json_list, "items", {})
    return BatchRoute(
        "item", path, inputs.item_to_json, body, lambda answer: answer["ids"], max_inputs, inputs.many_items
    )


def explanation(
    image: Image,
    label: str | None,
    item_id: str | None,
    item_image: Image | None,
    index: str,
    *,
    overlay: bool,
) -> Json:
    """The arguments of httpx for `POST /explain` of a class, or of a match if there is an item.

    Raises:
        ServiceError: an image cannot be read, or is given for no item.
    """
    if item_id is None and item_image is not None:
        raise ServiceError(0, "item_image is the image of an item: give its item_id too")
    params: Json = {"target": "class"} if item_id is None else {"target": "item", "id": item_id, "index": index}
    params |= {} if label is None else {"label": label}
    contents = []
    for place, source in enumerate([image] if item_image is None else [image, item_image]):
        try:
            contents.append(inputs.read_image(source))
        except (OSError, ValueError) as error:
            raise ServiceError(0, f"image {place}: cannot be read: {error}") from error
    return _multipart(contents, params={**params, "format": "json", "overlay": str(overlay).lower()})


def _multipart(images: Sequence[bytes], **arguments: Any) -> Json:
    return {"files": [("images", ("image", image)) for image in images], **arguments}


def _json_list(name: str, options: Json | SearchOptions, entries: Sequence[bytes]) -> Json:
    return json_body({**options, name: [orjson.Fragment(entry) for entry in entries]})


def divide(route: BatchRoute[Source, Any], sources: Any, limits: Limits) -> Iterator[list[EncodedInput[Source]]]:
    """Divides inputs, in order, into batches that fit into a request.

    It is lazy: before it yields a batch, it reads the inputs of that batch and the first of the next, and no others.
    """
    max_inputs, max_bytes = min(route.max_inputs, limits.max_inputs), limits.max_bytes - 2 * _OVERHEAD
    batch: list[EncodedInput[Source]] = []
    num_bytes = 0
    for index, source in enumerate(route.many(sources)):
        entry = _encode(route, index, source, max_bytes)
        size = len(entry.content) + _OVERHEAD
        if len(batch) == max_inputs or (batch and num_bytes + size > min(MAX_BYTES, max_bytes)):
            yield batch
            batch, num_bytes = [], 0
        batch.append(entry)
        num_bytes += size
    if batch:
        yield batch


def _encode(route: BatchRoute[Source, Any], index: int, source: Source, max_bytes: int) -> EncodedInput[Source]:
    try:
        content = route.encode(source)
    except OSError as error:
        return EncodedInput(index, source, b"", f"cannot be read: {error.strerror or error}")
    except (ValueError, orjson.JSONEncodeError) as error:  # a path with a null byte; an id that is no text
        return EncodedInput(index, source, b"", str(error))
    if len(content) > max_bytes:
        reason = f"{len(content):,} bytes when encoded; the service takes {max_bytes:,} in a request"
        return EncodedInput(index, source, b"", reason)
    return EncodedInput(index, source, content)


def without_rejected(
    batch: Sequence[EncodedInput[Source]],
    reasons: Mapping[int, str],
    status: int,
    kind: str,
    on_rejection: OnRejection | None,
) -> list[EncodedInput[Source]]:
    """The inputs of a batch but for those at the positions in `reasons`, which `on_rejection` is called with.

    Raises:
        ServiceError: an input is rejected, and there is no `on_rejection`.
    """
    rejections = [Rejection(batch[n].index, batch[n].source, reason, status) for n, reason in reasons.items()]
    if on_rejection is not None:
        for rejection in rejections:
            on_rejection(rejection)
    elif rejections:
        first = rejections[0]
        faults = [Fault(rejection.index, rejection.reason) for rejection in rejections]
        error = ServiceError(first.status, f"{kind} {first.index}: {first.reason}", faults)
        error.num_done = batch[0].index
        raise error
    return [entry for n, entry in enumerate(batch) if n not in reasons]
