"""Bytes -> checked, oriented RGB -> resized, normalized array: the only code of the project that turns bytes into pixels.

    kinds       what a file is, by its bytes
    errors      why it is refused, and what it may cost
    jpeg, png, containers   a walk through its structure: size, cost, metadata
    decoder     an image, by Pillow, turned upright by what `exif` reads, or as stored
    color       ... in 8-bit RGB and sRGB
    resize      ... as the network's input

Training and export call `preprocess`, the service the two parts of it, so a photograph means the same numbers everywhere. What
it does is numbered by `VERSION` and travels in the bundle: change a pixel it produces and the number must change.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rankone.model.preprocessing.color import to_srgb
from rankone.model.preprocessing.decoder import decode, decode_as_stored
from rankone.model.preprocessing.errors import (
    ImageLimits,
    ImageRejected,
    ImageTooLarge,
    UndecodableImage,
    UnsupportedImageType,
)
from rankone.model.preprocessing.exif import upright
from rankone.model.preprocessing.kinds import MEDIA_TYPES, OWN, SERVED, kind_of
from rankone.model.preprocessing.resize import (
    EARLIER,
    IMAGENET_MEAN,
    IMAGENET_STD,
    VERSION,
    Color,
    Jpeg,
    Preprocessing,
    resize_and_crop,
    resize_box,
    to_array,
    to_input,
)

__all__ = [
    "EARLIER",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "MEDIA_TYPES",
    "OWN",
    "SERVED",
    "VERSION",
    "Color",
    "ImageLimits",
    "ImageRejected",
    "ImageTooLarge",
    "Jpeg",
    "Preprocessing",
    "UndecodableImage",
    "UnsupportedImageType",
    "decode",
    "decode_as_stored",
    "kind_of",
    "preprocess",
    "resize_and_crop",
    "resize_box",
    "to_array",
    "to_input",
    "to_srgb",
    "upright",
]


def preprocess(data: bytes, spec: Preprocessing, limits: ImageLimits | None = None) -> npt.NDArray[np.float32]:
    """An encoded image to the network's input, (3, size, size) float32.

    Raises:
        ImageRejected: one of its subclasses, with a reason for the image's sender.
    """
    return to_input(decode_as_stored(data, limits or ImageLimits(), spec), spec)
