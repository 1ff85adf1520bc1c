"""Bytes -> checked, oriented RGB -> resized, normalized array: the only code of the project that turns bytes into pixels.

Training and export call `preprocess`, the service the two parts of it, so a photograph means the same numbers everywhere. What
it does is numbered by `VERSION` and travels in the bundle: change a pixel it produces and the number must change.

Errors:
    ImageRejected                the caller's image, never a fault of ours
    ├── UnsupportedImageType     not JPEG, PNG or WebP
    ├── ImageTooLarge            bytes, pixels or side over the limits
    └── UndecodableImage         the right signature, but broken inside
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from rankone.model.errors import RankoneError

VERSION: Final = 1

Image.MAX_IMAGE_PIXELS = None
"""Pillow's own limit holds for the whole process, and strikes before `Limits`, which may be larger. Whoever opens an image here
checks its size by `check_size` before it is decoded, and that of a WebP before it is opened."""

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)

_FORMATS: Final = ("JPEG", "PNG", "WEBP")
_ORIENTATION_TAG: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageRejected(RankoneError, ValueError):
    """An image that cannot be used; the message says why, in words for its sender."""


class UnsupportedImageType(ImageRejected):
    """The bytes do not begin like a JPEG, PNG or WebP file."""


class ImageTooLarge(ImageRejected):
    """The image has more bytes, pixels or a longer side than the limits allow."""


class UndecodableImage(ImageRejected):
    """The file begins well but cannot be decoded to its end."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an image may cost. Checked on the encoded bytes and the header, before a pixel is decoded."""

    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000
    max_side: int = 16_384


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an RGB image becomes the network's input; bound to the weights that were trained with it.

    The short side is resized to `short_side` pixels and the centre `size` x `size` is kept (bilinear, antialiased);
    values are scaled to [0, 1], then `(x - mean) / std` by channel.
    """

    size: int = 448
    short_side: int | None = None
    """Defaults to `size`: the largest centred square is kept."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError(
                f"preprocessing version {self.version} is not the version {VERSION} of this rankone: export the bundle again"
            )
        if not 0 < self.size <= (self.short_side or self.size):
            raise ValueError(f"size ({self.size}) must be positive and at most short_side ({self.short_side})")


def preprocess(data: bytes, spec: Preprocessing, limits: Limits | None = None) -> npt.NDArray[np.float32]:
    """An encoded image to the network's input, (3, size, size) float32.

    Raises:
        ImageRejected: one of its subclasses, with a reason for the image's sender.
    """
    return to_input(decode(data, limits or Limits()), spec)


def decode(data: bytes, limits: Limits) -> Image.Image:
    """A JPEG, PNG or WebP file to an upright 8-bit RGB image.

    EXIF orientation is applied; transparency is composited on white; 16-bit samples keep their high byte; palette,
    gray and CMYK become RGB; of an animation only the first frame is read.

    Raises:
        ImageRejected: one of its subclasses, with a reason for the image's sender.
        MemoryError: there is not enough for it; that is for the caller to judge.
    """
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(f"{len(data):,} bytes; at most {limits.max_bytes:,} are accepted")
    if not _has_known_signature(data):
        raise UnsupportedImageType("not a JPEG, PNG or WebP file")
    if data.startswith(b"RIFF"):
        check_size(_webp_size(data), limits)  # its decoder takes room for all pixels as soon as it is opened
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            check_size(image.size, limits)
            image.load()
            return _upright(_to_rgb(image), _orientation(image))
    except (ImageRejected, MemoryError):
        raise
    except UnidentifiedImageError as error:  # whose words are of an object in our memory
        raise UndecodableImage("cannot be decoded: what follows its signature is no header") from error
    except Exception as error:  # decoders raise whatever they like on hostile bytes; all of it is the image's fault
        raise UndecodableImage(f"cannot be decoded: {error}") from error


def check_size(size: tuple[int, int], limits: Limits) -> None:
    """Raises ImageTooLarge if an image of this width and height is over the limits."""
    width, height = size
    if max(width, height) > limits.max_side:
        raise ImageTooLarge(f"{width} x {height}; no side may be longer than {limits.max_side:,} pixels")
    if width * height > limits.max_pixels:
        raise ImageTooLarge(f"{width} x {height} pixels; at most {limits.max_pixels:,} are accepted")


def to_input(
    image: Image.Image, spec: Preprocessing, out: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    """An upright 8-bit RGB image to the network's input, (3, size, size) float32: in `out`, or a new array."""
    return to_array(resize_and_crop(image, spec), spec, out)


def resize_and_crop(image: Image.Image, spec: Preprocessing) -> Image.Image:
    """Short side to `spec.short_side`, then the centre square, in one resampling of just the pixels that are kept.

    One step instead of two bounds the work: a 1 x 16,384 strip never becomes a 448 x 7,340,032 image on the way.
    """
    kept = min(image.size) * spec.size / (spec.short_side or spec.size)
    left, top = (image.width - kept) / 2, (image.height - kept) / 2
    box = (left, top, left + kept, top + kept)
    return image.resize((spec.size, spec.size), Image.Resampling.BILINEAR, box=box)


def to_array(
    image: Image.Image, spec: Preprocessing, out: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    """An 8-bit RGB image to (3, height, width) float32, normalized by channel: in `out`, or a new array.

    The channels are put apart while they are bytes: arithmetic over a last axis of three takes ten times as long.
    """
    planes = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
    values: npt.NDArray[np.float32] = np.divide(planes, np.float32(255), out=out)
    values -= np.array(spec.mean, np.float32)[:, None, None]
    values /= np.array(spec.std, np.float32)[:, None, None]
    return values


def _has_known_signature(data: bytes) -> bool:
    return (
        data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"))
        or (data.startswith(b"RIFF") and data[8:12] == b"WEBP")
    )  # fmt: skip


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height by the first chunk (RFC 9649); where there is none, any that are small: nothing will be opened."""
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # unreadable metadata does not make the pixels wrong: as stored, like every viewer
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    method = _UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_16_bit(image)
    if image.has_transparency_data:
        return _on_white(image if image.mode in ("LA", "RGBA") else image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")  # of RGB it makes a copy


def _on_white(image: Image.Image) -> Image.Image:
    """Pasting writes each pixel once; `alpha_composite` gives the same ones by way of three more images of full size."""
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image)
    return white


def _from_16_bit(image: Image.Image) -> Image.Image:
    """16-bit gray by its high byte, as Pillow reads 16-bit RGB; `convert` would clip everything over 255 to white."""
    samples = np.asarray(image)
    gray = (samples >> 8).astype(np.uint8)
    if "transparency" in image.info:
        gray[samples == image.info["transparency"]] = 255
    return Image.fromarray(gray).convert("RGB")
