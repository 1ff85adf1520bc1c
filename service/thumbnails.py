"""Small pictures of what was indexed, to be shown beside a result."""

from __future__ import annotations

import io
from typing import Final

from model.preprocessing import Limits, decode

SIDE: Final = 256
_QUALITY: Final = 85


def thumbnail(data: bytes, limits: Limits) -> bytes:
    """The image as a JPEG of at most SIDE x SIDE, encoded anew: upright, without metadata and without whatever hid in the file.

    Raises:
        ImageRejected: it cannot be decoded within `limits`.
    """
    image = decode(data, limits)
    image.thumbnail((SIDE, SIDE))
    image.info.clear()  # a comment or a profile would be written along
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
