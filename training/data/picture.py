"""From an image file to a picture and to the pixels that a network reads, without torch; every command uses this path.

The service takes JPEG, PNG and WebP only. Published data sets hold more: MIT Indoor-67 has files that end in .jpg and are in
another format. Those are converted to PNG in memory, without loss, and then decoded like all others, so that orientation,
transparency and 16 bits mean the same in every file.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from rankone.model.preprocessing import (
    ImageRejected,
    Preprocessing,
    UndecodableImage,
    UnsupportedImageType,
    check_size,
    decode,
    resize_and_crop,
    to_array,
)
from rankone.training.data.dataset import OWN_IMAGES, DataError

_OTHER_FORMATS: Final = ("GIF", "BMP", "TIFF", "PPM")
"""Not every format that Pillow knows: it hands EPS to another program."""
_AS_PNG: Final = {"CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "RGBX": "RGB", "RGBa": "RGBA", "PA": "RGBA"}
"""Modes that PNG lacks, and the mode that holds the same picture. Floats and 32-bit integers, of unknown range, have none."""
_ORIENTATION_TAG: Final = 0x0112


def picture(path: Path, banner: int = 0) -> Image.Image:
    """The upright 8-bit RGB image in a file, without the `banner` lowest rows of its pixels.

    Raises:
        DataError: a file that cannot be read as an image, or has no more rows than its banner; the message names it.
    """
    try:
        data = path.read_bytes()
        try:
            image = decode(data, OWN_IMAGES)
        except UnsupportedImageType:
            image = decode(_png(data), OWN_IMAGES)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except ImageRejected as error:
        raise DataError(f"{path}: {error}") from error
    if banner >= image.height:
        raise DataError(f"{path}: {image.height} rows of pixels, of which {banner} are to be cut off as its banner")
    return image.crop((0, 0, image.width, image.height - banner)) if banner else image


def _png(data: bytes) -> bytes:
    """The first frame of an image in one of the other formats, as PNG."""
    out = io.BytesIO()
    try:
        with Image.open(io.BytesIO(data), formats=_OTHER_FORMATS) as image:
            check_size(image.size, OWN_IMAGES)
            image.load()
            exif = Image.Exif()
            exif[_ORIENTATION_TAG] = image.getexif().get(_ORIENTATION_TAG, 1)
            frame = image.convert(_AS_PNG[image.mode]) if image.mode in _AS_PNG else image
            frame.save(out, "PNG", exif=exif, compress_level=1)
    except UnidentifiedImageError as error:
        known = ", ".join(("JPEG", "PNG", "WebP", *_OTHER_FORMATS))
        raise UnsupportedImageType(f"no image that can be read; these can: {known}") from error
    except ImageRejected:
        raise
    except Exception as error:  # decoders raise many kinds of errors on broken bytes
        raise UndecodableImage(f"cannot be decoded: {error}") from error
    return out.getvalue()


def pixels(path: Path, spec: Preprocessing, banner: int = 0) -> npt.NDArray[np.float32]:
    """The network's input for the image in a file, (3, size, size); raises DataError as `picture` does."""
    return to_array(resize_and_crop(picture(path, banner), spec), spec)
