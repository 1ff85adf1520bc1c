"""An image to the network's input: how, which is what a bundle records of preprocessing, and the code that does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from rankone.model.preprocessing.color import tagged, to_srgb
from rankone.model.preprocessing.exif import upright

VERSION: Final = 4
"""What decoding does. Change a pixel that it produces, and this number must change.

    1   color profiles ignored; the transparent colour of a PNG is compared without regard to its bits; sBIT is not read
    2   color profiles by `Preprocessing.color`; transparent colours of 2-, 4- and 16-bit PNGs as the standard has them;
        16-bit gray whose samples fill only the low bits that sBIT names is scaled
    3   JPEG by `Preprocessing.jpeg`
    4   images are turned upright after the resize
"""
_VERSIONS: Final = (1, 2, 3, 4)

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)

EARLIER: Final = {"color": "ignored", "jpeg": "whole"}
"""What bundles and runs mean that were written before `Preprocessing` had these fields."""

Color = Literal["managed", "ignored"]
Jpeg = Literal["reduced", "whole"]


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
    color: Color = "managed"
    """Whether colours are converted to sRGB by the ICC profile in the file. The manifests of older bundles lack this field;
    there it means `ignored`."""
    jpeg: Jpeg = "reduced"
    """Whether a JPEG with many times the pixels that are kept is reduced while it is decoded: see `jpeg.reduction`. The
    manifests of older bundles lack this field; there it means `whole`."""
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.version not in _VERSIONS:
            known = f"{', '.join(map(str, _VERSIONS[:-1]))} or {_VERSIONS[-1]}"
            raise ValueError(
                f"preprocessing version {self.version} is not version {known} of this rankone: export the bundle again"
            )
        if self.version == 1 and self.color != "ignored":
            raise ValueError("preprocessing version 1 has no colour management: color must be 'ignored'")
        if self.version < 3 and self.jpeg != "whole":
            raise ValueError(f"preprocessing version {self.version} reduces no JPEG: jpeg must be 'whole'")
        if not 0 < self.size <= self.kept_side:
            raise ValueError(f"size ({self.size}) must be positive and at most short_side ({self.short_side})")

    @property
    def kept_side(self) -> int:
        """Pixels to which the short side is resized."""
        return self.short_side or self.size

    @property
    def summary(self) -> str:
        """In a line for people."""
        kept = f"{self.size} x {self.size} of {self.kept_side} of the short side"
        reduced = "large JPEGs reduced" if self.jpeg == "reduced" else "JPEGs whole"
        return f"{kept}, colours {self.color}, {reduced} (version {self.version})"


def to_input(
    image: Image.Image, spec: Preprocessing, out: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    """A decoded image, upright or as stored, to the network's input, (3, size, size) float32: in `out`, or a new array."""
    return to_array(resize_and_crop(image, spec), spec, out)


def resize_and_crop(image: Image.Image, spec: Preprocessing) -> Image.Image:
    """Short side to `spec.short_side`, then the centre square, in one resampling of just the pixels that are kept; as RGB.

    An image from `decode_as_stored` is turned upright afterwards; its centre is where that of the upright one is.
    One step instead of two bounds the work: a 1 x 16,384 strip never becomes a 448 x 7,340,032 image on the way.
    """
    kept = min(image.size) * spec.size / spec.kept_side
    left, top = (image.width - kept) / 2, (image.height - kept) / 2
    return resize_box(image, (left, top, left + kept, top + kept), spec)


def resize_box(image: Image.Image, box: tuple[float, float, float, float], spec: Preprocessing) -> Image.Image:
    """The part of an image in `box`, (left, top, right, bottom), as the network's input; as RGB."""
    if spec.color == "managed":
        return to_srgb(upright(image.resize((spec.size, spec.size), Image.Resampling.BILINEAR, box=box)))
    image = image if image.mode == "RGB" else image.convert("RGB")
    return tagged(upright(image.resize((spec.size, spec.size), Image.Resampling.BILINEAR, box=box)), None)


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
