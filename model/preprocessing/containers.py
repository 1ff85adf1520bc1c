"""WebP and GIF: their size, read from the header, because their decoders take room for all pixels as soon as they open a file.
Files of boxes (AVIF, HEIC): whether they break off.
"""

from __future__ import annotations

from typing import Final

from rankone.model.preprocessing.errors import ImageLimits, UndecodableImage, check_size
from rankone.model.preprocessing.kinds import CheckedFile

_MAX_BLOCKS: Final = 100_000
"""Pieces of comments and other extensions before the first frame of a GIF."""
_MAX_BOXES: Final = 10_000
_CONTROL: Final = b"!\xf9"
"""Begins the extension that holds the transparent colour. Pillow's reader can be led astray by others."""
_EXTENSION, _FRAME, _END = b"!", b",", b";"


def walk_webp(data: bytes, limits: ImageLimits) -> CheckedFile:
    """Width and height by the first chunk (RFC 9649); where it breaks off, any that are small: nothing will be opened.

    Raises:
        ImageTooLarge: over the limits.
    """
    kind = data[12:16]
    if kind == b"VP8X":
        size = 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        size = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        size = int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    check_size(size, limits)
    return CheckedFile(kind="WEBP", data=data, is_whole=int.from_bytes(data[4:8], "little") + 8 <= len(data))


def walk_gif(data: bytes, limits: ImageLimits) -> CheckedFile:
    """Width and height of the screen, widened by its first frame as Pillow does.

    Raises:
        ImageRejected: over the limits, or without a frame.
    """
    if len(data) < 13:
        raise UndecodableImage.because(f"this GIF breaks off after {len(data)} bytes; send the whole file")
    size = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    check_size(size, limits)
    at, blocks = 13 + _colour_table(data[10]), 0
    kept = [data[:at]]
    while at < len(data) and data[at : at + 1] not in (_FRAME, _END):
        start = at
        if data[at : at + 1] == _EXTENSION:
            at += 2
            while at < len(data) and data[at]:
                at += 1 + data[at]
                blocks += 1
        at += 1  # its end, or a byte that does not belong here: decoders pass over it
        if data[start : start + 2] == _CONTROL:
            kept.append(data[start:at])
        blocks += 1
        if blocks > _MAX_BLOCKS:
            raise UndecodableImage.because(f"this GIF has more than {_MAX_BLOCKS:,} blocks before its picture")
    if data[at : at + 1] != _FRAME or at + 10 > len(data):
        what = "breaks off" if at >= len(data) else "holds no picture"
        raise UndecodableImage.because(f"this GIF {what} after {min(at, len(data)):,} bytes; send the whole file")
    left, top, width, height = (int.from_bytes(data[i : i + 2], "little") for i in range(at + 1, at + 9, 2))
    size = max(size[0], left + width), max(size[1], top + height)
    check_size(size, limits)
    kept.append(data[at:])
    return CheckedFile(kind="GIF", data=b"".join(kept), is_whole=data.rstrip(b"\0").endswith(_END))


def walk_boxes(kind: str, data: bytes) -> CheckedFile:
    """Over the outermost boxes (ISO 14496-12). Their decoders read the size without decoding."""
    at = 0
    for _ in range(_MAX_BOXES):
        length = int.from_bytes(data[at : at + 4])
        if length == 1:
            length = int.from_bytes(data[at + 8 : at + 16])
        if length < 8:  # 0 means: to the end of the file
            break
        at += length
        if at >= len(data):
            break
    return CheckedFile(kind=kind, data=data, is_whole=at <= len(data))


def _colour_table(flags: int) -> int:
    """Bytes of the colour table that these flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
