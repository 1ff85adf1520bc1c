"""Image files for tests, made where they are needed, and what is in them."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    shape = (height, width) if channels == 1 else (height, width, channels)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8), mode)


def pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    return np.asarray(image)


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int, height: int, bits: int = 8, colour: int = 2) -> bytes:
    """The signature and the first chunk of a PNG."""
    return PNG_SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))


def png(samples: npt.NDArray[np.unsignedinteger[Any]], bits: int, *before: bytes) -> bytes:
    """A PNG of gray (height, width) or RGB (height, width, 3) samples, with the chunks `before` ahead of its pixels."""
    height, width = samples.shape[:2]
    rows = []
    for row in samples.reshape(height, -1):
        packed = "".join(f"{int(sample):0{bits}b}" for sample in row)
        rows.append(b"\0" + int(packed.ljust(-(-len(packed) // 8) * 8, "0"), 2).to_bytes(-(-len(packed) // 8)))
    start = header(width, height, bits, 0 if samples.ndim == 2 else 2)
    return start + b"".join(before) + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")


def with_chunk(data: bytes, extra: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    return data[:33] + extra + data[33:]


def segment(marker: int, body: bytes) -> bytes:
    """One segment of a JPEG."""
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2) + body


def with_segments(data: bytes, *extra: bytes) -> bytes:
    """A JPEG with more segments behind its first marker."""
    return data[:2] + b"".join(extra) + data[2:]


def exif(orientation: int) -> bytes:
    """As little Exif as says an orientation."""
    return b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0) + b"\0\0\0\0"


def boxes(major: bytes, *compatible: bytes) -> bytes:
    """The beginning of a file of boxes (ISO 14496-12), such as HEIC, with these brands."""
    brands = major + bytes(4) + b"".join(compatible)
    return (len(brands) + 8).to_bytes(4) + b"ftyp" + brands + b"\0\0\0\x08mdat"


def scan_bomb(side: int, scans: int) -> bytes:
    """A JPEG that says it has `side` x `side` pixels, and passes over them `scans` times."""
    data = encoded(noise(8, 8, "L"), "JPEG", progressive=True)
    frame = data.index(b"\xff\xc2")
    data = data[: frame + 5] + struct.pack(">HH", side, side) + data[frame + 9 :]
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * scans + b"\xff\xd9"
