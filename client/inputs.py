"""What goes into a client, and how it is encoded."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, Protocol, TypedDict
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import orjson

from rankone.client.results import Json

DEFAULT_INDEX: Final = "default"


def quoted(name: str) -> str:
    """One segment of a path from a name; `.` and `..` are quoted too, or httpx would shorten the path."""
    return name.replace(".", "%2E") if name in (".", "..") else quote(name, safe="")


def path_of(index: str, item_id: str) -> str:
    """The path of an item."""
    return f"/indexes/{quoted(index)}/items/{quoted(item_id)}"


def chunks(ids: Iterable[str], size: int) -> Iterator[list[str]]:
    """The ids in lists of `size`, the last one of which may be shorter."""
    rest = iter(ids)
    while chunk := list(islice(rest, size)):
        yield chunk


class File(Protocol):
    """A file, such as a `Path`, which is read when its turn to be sent comes."""

    def read_bytes(self) -> bytes:
        """The bytes of an image; raises OSError if there are none."""
        ...


Image = bytes | File
Vector = npt.NDArray[np.floating]


@dataclass(frozen=True)
class NewItem:
    """An item to add: an image, or its embedding (dim,), under an id.

    The client makes up an id if none is given, so that a repeated request does not add the item twice.
    """

    source: Image | Vector
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    metadata: Json = field(default_factory=dict)


class SearchOptions(TypedDict, total=False):
    """The options of a search; the service's defaults apply to those not given."""

    k: int  # neighbours of each query, 10 by default
    filter: Json  # only items whose metadata matches, as {"year": {"$gte": 2020}}
    min_score: float  # only items with at least this cosine similarity
    exclude_self: bool  # without the item itself, if the queries are ids
    group_by: str  # only the best item for each value of this metadata field


def new_items(
    sources: Iterable[Image] | Iterable[Vector], ids: Iterable[str] | None, metadata: Iterable[Json] | None
) -> Iterator[NewItem]:
    """Items to add, with their ids and metadata if given; raises ValueError if these are not as many as the sources."""
    columns = {"source": sources, "id": ids, "metadata": metadata}
    given: dict[str, Iterable[Any]] = {name: values for name, values in columns.items() if values is not None}
    lengths = {len(values) for values in given.values() if isinstance(values, Sized)}
    if len(lengths) > 1:  # raised before anything is sent, if the lengths are known
        raise ValueError(f"{' and '.join(given)} are of different lengths: {sorted(lengths)}")
    for values in zip(*given.values(), strict=True):
        yield NewItem(**dict(zip(given, values, strict=True)))


def read_image(image: Image) -> bytes:
    """The bytes of an image; raises OSError if its file cannot be read."""
    return image if isinstance(image, bytes) else image.read_bytes()


def image_to_json(image: Image) -> bytes:
    """An image in base64, as JSON; raises OSError if its file cannot be read."""
    return orjson.dumps(base64.b64encode(read_image(image)).decode())


def vector_to_json(vector: Vector) -> bytes:
    """A vector (dim,) as a JSON list of float32 numbers."""
    return orjson.dumps(np.ascontiguousarray(vector, np.float32), option=orjson.OPT_SERIALIZE_NUMPY)


def item_to_json(item: NewItem) -> bytes:
    """An item with its image or vector; raises OSError if its file cannot be read."""
    if isinstance(item.source, np.ndarray):
        source = {"vector": orjson.Fragment(vector_to_json(item.source))}
    else:
        source = {"image": orjson.Fragment(image_to_json(item.source))}
    return orjson.dumps({"id": item.id, "metadata": item.metadata, **source})


def json_body(body: Json) -> Json:
    """The arguments of httpx for a JSON body; orjson writes vectors faster than httpx does."""
    return {"content": orjson.dumps(body), "headers": {"content-type": "application/json"}}
