"""Small pictures of what was indexed, to be shown beside a result; made where the image is decoded."""

from __future__ import annotations

import io
from typing import Final

from PIL import Image

SIDE: Final = 256
_QUALITY: Final = 85


def thumbnail(image: Image.Image) -> bytes:
    """An upright RGB image as a JPEG of at most SIDE x SIDE, without metadata and without whatever hid in the file.

    `image` itself is made that small: a copy of it could take more memory than there is for it.
    """
    image.thumbnail((SIDE, SIDE))
    image.info.clear()  # a comment or a profile would be written along
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
