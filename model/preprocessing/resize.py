"""A decoded image to the network's input: resized, cut, converted to sRGB, normalized."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from rankone.model.preprocessing.color import tagged, to_srgb
from rankone.model.preprocessing.spec import Preprocessing


def to_input(
    image: Image.Image, spec: Preprocessing, out: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    """An image from `decode` to the network's input, (3, size, size) float32: in `out`, or a new array."""
    return to_array(resize_and_crop(image, spec), spec, out)


def resize_and_crop(image: Image.Image, spec: Preprocessing) -> Image.Image:
    """Short side to `spec.short_side`, then the centre square, in one resampling of just the pixels that are kept; as RGB.

    One step instead of two bounds the work: a 1 x 16,384 strip never becomes a 448 x 7,340,032 image on the way.
    """
    kept = min(image.size) * spec.size / spec.kept_side
    left, top = (image.width - kept) / 2, (image.height - kept) / 2
    box = (left, top, left + kept, top + kept)
    if spec.color == "managed":
        return to_srgb(image.resize((spec.size, spec.size), Image.Resampling.BILINEAR, box=box))
    image = image if image.mode == "RGB" else image.convert("RGB")
    return tagged(image.resize((spec.size, spec.size), Image.Resampling.BILINEAR, box=box), None)


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
