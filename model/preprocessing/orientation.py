"""The orientation of a photograph, from Exif or XMP."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Any, Final

from PIL import Image

from rankone.model.preprocessing.tiff import numbers

_TAG: Final = 0x0112
_XMP: Final = re.compile(rb'tiff:Orientation(="|>)([0-9])')
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(image: Image.Image, info: Mapping[Any, Any]) -> Image.Image:
    """The image as its photographer held the camera, by metadata under Pillow's names."""
    method = _UPRIGHT.get(_orientation(info))
    return image if method is None else image.transpose(method)


def _orientation(info: Mapping[Any, Any]) -> int:
    """1 to 8, or any number that means nothing: unreadable metadata does not make the pixels wrong."""
    exif = info.get("exif")
    try:
        if exif is None and "Raw profile type exif" in info:  # as ImageMagick writes it into PNG
            exif = bytes.fromhex("".join(info["Raw profile type exif"].split("\n")[3:]))
        if exif is not None and (found := _from_exif(exif)) is not None:
            return found
    except (ValueError, struct.error):
        return 1
    xmp = info.get("XML:com.adobe.xmp") or info.get("xmp") or b""
    match = _XMP.search(xmp.encode() if isinstance(xmp, str) else xmp)
    return int(match[2]) if match else 1


def _from_exif(exif: bytes) -> int | None:
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    return numbers(exif).get(_TAG)
