"""The first directory of a TIFF file, which is also the form of Exif.

Read without Pillow's parser: it copies the data of every entry, and entries may share theirs, so that 64 KB of Exif become
gigabytes.
"""

from __future__ import annotations

import struct
from typing import Final

_NUMBERS: Final = {3: "H", 4: "I", 8: "h", 9: "i"}
"""Types of entry that hold whole numbers, by their codes in `struct`."""


_HEADS: Final = (b"II*\0", b"II\0*", b"MM\0*", b"MM*\0")  # some writers swap the two bytes


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
