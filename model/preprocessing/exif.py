"""Exif, which is the first directory of a TIFF file, and the orientation of a photograph in it or in XMP.

Read without Pillow's parser: it copies the data of every entry, and entries may share theirs, so that 64 KB of Exif become
gigabytes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Any, Final

from PIL import Image

_NUMBERS: Final = {3: "H", 4: "I", 8: "h", 9: "i"}
"""Types of entry that hold whole numbers, by their codes in `struct`."""
_HEADS: Final = (b"II*\0", b"II\0*", b"MM\0*", b"MM*\0")  # some writers swap the two bytes
_TAG: Final = 0x0112
TURN: Final = "turn"
"""Under which the `info` of an image has the transposition that turns it upright, if it is not."""
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


def numbers(data: bytes) -> dict[int, int | None]:
    """Entries by tag, the last where a tag comes twice: its first number, or None if it is not in the entry itself.

    Raises:
        struct.error: it breaks off before its directory, or is no TIFF.
    """
    if data[:4] not in _HEADS:
        raise struct.error("no TIFF")
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    entries = data[start + 2 : start + 2 + 12 * count]
    found: dict[int, int | None] = {}
    for tag, kind, values, value in struct.iter_unpack(f"{order}HHI4s", entries[: len(entries) // 12 * 12]):
        code = _NUMBERS.get(kind)
        fits = code is not None and 1 <= values <= 4 // struct.calcsize(code)
        found[tag] = struct.unpack_from(f"{order}{code}", value)[0] if fits else None
    return found


def turn(info: Mapping[Any, Any]) -> Image.Transpose | None:
    """How an image is turned upright, as its photographer held the camera, by metadata under Pillow's names."""
    return _UPRIGHT.get(_orientation(info))


def upright(image: Image.Image) -> Image.Image:
    """An image from `decode_as_stored`, or one resized from it, turned upright."""
    method = image.info.pop(TURN, None)
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
