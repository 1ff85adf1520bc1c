"""What goes into a client, and how it is encoded."""

from __future__ import annotations

import base64
import io
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, Final, Protocol, TypedDict, TypeVar
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import orjson

from rankone.client.results import Json

DEFAULT_INDEX: Final = "default"

T = TypeVar("T")


def quoted(name: str) -> str:
    """One segment of a path from a name; `.` and `..` are quoted too, or httpx would shorten the path."""
    return name.replace(".", "%2E") if name in (".", "..") else quote(name, safe="")


def path_of(index: str, *parts: str) -> str:
    """The path of an index, or of what is in it: `path_of("default", "items", "a/b")`."""
    return "/".join(("/indexes", *map(quoted, (index, *parts))))


class File(Protocol):
    """A file, such as a `Path`, which is read when its turn to be sent comes."""

    def read_bytes(self) -> bytes:
        """The bytes of an image; raises OSError if there are none."""
        ...


class OpenFile(Protocol):
    """A file that was opened to read bytes."""

    def read(self) -> bytes:
        """The bytes of an image, from where the file is."""
        ...


class Picture(Protocol):
    """An image of Pillow."""

    def save(self, fp: Any, format: str) -> None:  # noqa: A002 - Pillow's
        """Writes it."""
        ...


Pixels = npt.NDArray[np.uint8]
"""(h, w), (h, w, 3) or (h, w, 4): gray, RGB or RGBA."""
Image = bytes | str | os.PathLike[str] | File | OpenFile | Picture | Pixels
"""An image file: its bytes, its path or an open file; or the pixels of an image, which are sent as PNG and need Pillow."""
Images = Image | Iterable[Image]
Vector = npt.NDArray[np.floating] | Sequence[float]
Vectors = Vector | Iterable[Vector]


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
    sources: Iterable[Image] | Iterable[Vector], ids: Iterable[str] | None, metadata: Iterable[Json] | Json | None
) -> Iterator[NewItem]:
    """Items to add, with their ids and metadata if given; raises ValueError if these are not as many as the sources."""
    columns = {
        "source": sources,
        "id": None if ids is None else many_ids(ids),
        "metadata": [metadata] if isinstance(metadata, Mapping) else metadata,
    }
    given: dict[str, Iterable[Any]] = {name: values for name, values in columns.items() if values is not None}
    lengths = {len(values) for values in given.values() if isinstance(values, Sized)}
    if len(lengths) > 1:  # raised before anything is sent, if the lengths are known
        raise ValueError(f"{' and '.join(given)} are of different lengths: {sorted(lengths)}")
    for values in zip(*given.values(), strict=True):
        yield NewItem(**dict(zip(given, values, strict=True)))


def many_images(images: Images) -> Iterable[Image]:
    """The images; a single one as a list."""
    is_pixels = isinstance(images, np.ndarray) and (
        images.ndim == 2 or (images.ndim == 3 and images.shape[2] in (3, 4))
    )
    is_file = any(hasattr(images, name) for name in ("read_bytes", "read", "save"))
    is_single = is_pixels or is_file or isinstance(images, bytes | bytearray | str | os.PathLike)
    return [images] if is_single else images  # type: ignore[list-item, return-value]


def many_vectors(vectors: Vectors) -> Iterable[Vector]:
    """The vectors; a single one as a list."""
    is_single = getattr(vectors, "ndim", None) == 1 or (
        isinstance(vectors, Sequence) and len(vectors) > 0 and isinstance(vectors[0], Real)
    )
    return [vectors] if is_single else vectors  # type: ignore[list-item, return-value]


def many_ids(ids: Iterable[str]) -> Iterable[str]:
    """The ids; a single one as a list, as its characters are no ids."""
    return [ids] if isinstance(ids, str) else ids


def many_items(items: NewItem | Iterable[NewItem]) -> Iterable[NewItem]:
    """The items; a single one as a list."""
    return [items] if isinstance(items, NewItem) else items


def examples(positive: Iterable[str], negative: Iterable[str]) -> Json:
    """The ids of items to be near to and far from, as the service takes them."""
    near, far = list(many_ids(positive)), list(many_ids(negative))
    return {"positive": near, **({"negative": far} if far else {})}


def chunks(values: list[T], size: int) -> list[list[T]]:
    """The values in lists of `size`; the last one may be shorter."""
    return [values[start : start + size] for start in range(0, len(values), size)]


def read_image(image: Image) -> bytes:
    """The bytes of an image; raises OSError if its file cannot be read, ValueError if it is nothing that an image can be."""
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    if isinstance(image, np.ndarray):
        return _png_of_pixels(image)
    if hasattr(image, "read_bytes"):
        return image.read_bytes()
    if hasattr(image, "read"):
        if not isinstance(data := image.read(), bytes):
            raise ValueError("a file that was opened as text: open it as bytes ('rb')")
        return data
    if hasattr(image, "save"):
        return _png(image)
    raise ValueError(
        f"{type(image).__name__} is no image: give a path, bytes, an open file, a Pillow image or an array"
    )


def _png_of_pixels(pixels: npt.NDArray[Any]) -> bytes:
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        described = f"an array {pixels.shape} of {pixels.dtype}"
        raise ValueError(f"{described} is no image: give (h, w), (h, w, 3) or (h, w, 4) of uint8")
    try:
        from PIL import Image as pillow  # noqa: N813 - not one of our dependencies
    except ImportError as error:
        raise ValueError("arrays are sent as PNG, which needs Pillow: pip install pillow") from error
    return _png(pillow.fromarray(pixels))


def _png(picture: Any) -> bytes:
    """Upright, as the service shows the file that the picture was read from; keeps its colour profile."""
    from PIL import ImageOps  # installed wherever there is a picture

    png = io.BytesIO()
    ImageOps.exif_transpose(picture).save(png, "PNG")
    return png.getvalue()


def image_to_json(image: Image) -> bytes:
    """An image in base64, as JSON; raises OSError if its file cannot be read."""
    return orjson.dumps(base64.b64encode(read_image(image)).decode())


def vector_to_json(vector: Vector) -> bytes:
    """A vector (dim,) as a JSON list of float32 numbers; raises ValueError if it holds anything else."""
    return orjson.dumps(np.ascontiguousarray(vector, np.float32), option=orjson.OPT_SERIALIZE_NUMPY)


def item_to_json(item: NewItem) -> bytes:
    """An item with its image or vector; raises OSError or ValueError if it cannot be read."""
    given: Any = item.source
    if isinstance(given, list | tuple) or getattr(given, "ndim", None) == 1:
        source = {"vector": orjson.Fragment(vector_to_json(given))}
    else:
        source = {"image": orjson.Fragment(image_to_json(given))}
    return orjson.dumps({"id": item.id, "metadata": item.metadata, **source})


def json_body(body: Json) -> Json:
    """The arguments of httpx for a JSON body; orjson writes vectors faster than httpx does."""
    return {"content": orjson.dumps(body), "headers": {"content-type": "application/json"}}
