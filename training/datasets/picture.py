"""A file of a data set to the picture in it, the same way for whoever verifies, trains, measures or exports.

The service takes JPEG, PNG and WebP and nothing else. Data sets as they are distributed hold more: MIT Indoor-67 has files
that end in .jpg and are another format inside. Those are written again as PNG, in memory and without loss, and go through the
canonical decoder like all others, so that orientation, transparency and 16 bits mean the same in every file.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

from PIL import Image, UnidentifiedImageError

from rankone.model.preprocessing import ImageRejected, UndecodableImage, UnsupportedImageType, check_size, decode
from rankone.training.datasets.dataset import OWN_IMAGES, DataError

_OTHER_FORMATS: Final = ("GIF", "BMP", "TIFF", "PPM")
"""Not all that Pillow knows: it hands EPS to another program."""
_AS_PNG: Final = {"CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "RGBX": "RGB", "RGBa": "RGBA", "PA": "RGBA"}
"""Modes that PNG lacks, by the one that holds the same picture. Floats and 32-bit integers have none: of unknown range."""
_ORIENTATION_TAG: Final = 0x0112


def picture(path: Path, banner: int = 0) -> Image.Image:
    """The upright 8-bit RGB image in a file, without the `banner` lowest rows of its pixels.

    Raises:
        DataError: a file that cannot be read as an image, or has no more rows than its banner; the message names it.
    """
    try:
        image = _decoded(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except ImageRejected as error:
        raise DataError(f"{path}: {error}") from error
    if banner >= image.height:
        raise DataError(f"{path}: {image.height} rows of pixels, of which {banner} are to be cut off as its banner")
    return image.crop((0, 0, image.width, image.height - banner)) if banner else image


def _decoded(data: bytes) -> Image.Image:
    try:
        return decode(data, OWN_IMAGES)
    except UnsupportedImageType:
        return decode(_png(data), OWN_IMAGES)


def _png(data: bytes) -> bytes:
    """The first frame of an image in one of the other formats."""
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
    except Exception as error:  # decoders raise whatever they like on broken bytes
        raise UndecodableImage(f"cannot be decoded: {error}") from error
    return out.getvalue()
