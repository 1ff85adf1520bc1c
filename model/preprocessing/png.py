"""PNG: walks through the chunks and hands on those that the pixels depend on (W3C PNG, third edition).

Pillow refuses a whole image for a text or a profile that it finds too long, or for a wrong checksum beside the picture;
every viewer shows such a file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from rankone.model.preprocessing.errors import ImageLimits, UndecodableImage, check_size
from rankone.model.preprocessing.kinds import CheckedFile

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_CRITICAL: Final = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_ORIENTING: Final = (b"exif", b"Raw profile type exif", b"XML:com.adobe.xmp")
"""Keywords of texts in which Pillow looks for an orientation."""
_DEPTHS: Final = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Bits of a sample by colour type: gray, RGB, palette, gray with alpha, RGB with alpha."""
_GRAY, _RGB, _PALETTE = 0, 2, 3

_MAX_CHUNKS: Final = 100_000
"""A file at the limit of bytes, in pieces of 200 bytes."""
_MAX_TEXT: Final = 1 << 20
_MAX_TEXTS: Final = 16
"""That may hold an orientation. A kilobyte of them can be a megabyte to inflate."""
_MAX_PROFILE: Final = 4 << 20


@dataclass(frozen=True)
class _Header:
    bits: int
    colour: int


@dataclass
class _Found:
    """What was learned from ancillary chunks."""

    info: dict[str, Any] = field(default_factory=dict)
    texts: int = 0


def walk(data: bytes, limits: ImageLimits, version: int) -> CheckedFile:
    """Checks a PNG and leaves the chunks that matter.

    Raises:
        ImageRejected: over the limits, or a header or palette that is damaged, missing or of no known kind.
    """
    header = _header(data, limits)
    kept, found, seen = [_SIGNATURE], _Found(), set[bytes]()
    for kind, chunk, body in _chunks(data):
        seen.add(kind)
        if kind in _CRITICAL:
            _check_critical(kind, body)
            kept.append(chunk)
        elif body is not None:
            kept.append(_ancillary(kind, body, header, version, found))
    _check_complete(header, seen, len(data))
    return CheckedFile(kind="PNG", data=b"".join(kept), info=found.info, is_whole=b"IEND" in seen)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes | None]]:
    """Name, all bytes and content of each chunk, to IEND or to what is no chunk; no content where it is cut or damaged."""
    at = len(_SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        length, kind = struct.unpack_from(">I4s", data, at) if at + 8 <= len(data) else (0, b"")
        if not kind.isalpha():
            return
        chunk = data[at : at + 12 + length]
        yield kind, chunk, chunk[8:-4] if kind == b"IDAT" or _is_intact(chunk, length) else None
        at += 12 + length
        if kind == b"IEND":
            return
    raise UndecodableImage.because(f"this PNG has more than {_MAX_CHUNKS:,} chunks; save it again")


def _ancillary(kind: bytes, body: bytes, header: _Header, version: int, found: _Found) -> bytes:
    """The chunk that is handed on in place of this one, if any; what is to be known of it goes into `found`."""
    match kind:
        case b"CgBI":
            raise UndecodableImage.because("this PNG was rewritten by Xcode for iOS; send the original")
        case b"iCCP" if "icc_profile" not in found.info:
            found.info["icc_profile"] = _profile(body)
        case b"sBIT" if version > 1 and header == _Header(16, _GRAY) and len(body) == 1 and 0 < body[0] <= 16:
            found.info["bits"] = body[0]
        case b"tRNS":
            return _chunk(kind, _transparency(header, body) if version > 1 else body)
        case b"eXIf":
            return _chunk(kind, body)
        case b"tEXt" | b"zTXt" | b"iTXt" if body.partition(b"\0")[0] in _ORIENTING:
            found.texts += 1
            if found.texts <= _MAX_TEXTS and _is_short(kind, body):
                return _chunk(kind, body)
    return b""


def _header(data: bytes, limits: ImageLimits) -> _Header:
    if len(data) < 33:
        raise UndecodableImage.because(f"this PNG breaks off after {len(data)} bytes; send the whole file")
    length, kind, width, height, bits, colour = struct.unpack_from(">I4sIIBB", data, 8)
    if (length, kind) != (13, b"IHDR") or not (width and height):
        raise UndecodableImage.because("this PNG does not begin with the header of an image; save it again")
    check_size((width, height), limits)
    if bits not in _DEPTHS.get(colour, ()):
        raise UndecodableImage.because(f"this PNG is of colour type {colour} with {bits} bits, which does not exist")
    return _Header(bits, colour)


def _check_critical(kind: bytes, body: bytes | None) -> None:
    """Of pixels no checksum is looked at: their compression has its own."""
    if body is None and kind in (b"IHDR", b"PLTE"):
        name = "header" if kind == b"IHDR" else "palette"
        raise UndecodableImage.because(f"the {name} of this PNG is damaged (wrong checksum); save or send it again")


def _check_complete(header: _Header, seen: set[bytes], length: int) -> None:
    if b"IDAT" not in seen:
        what = "has no pixels (IDAT)" if b"IEND" in seen else f"breaks off after {length:,} bytes, before its pixels"
        raise UndecodableImage.because(f"this PNG {what}; send the whole file")
    if header.colour == _PALETTE and b"PLTE" not in seen:
        raise UndecodableImage.because("this PNG has a palette image, but no palette (PLTE); save it again")


def _is_intact(chunk: bytes, length: int) -> bool:
    return len(chunk) == length + 12 and zlib.crc32(memoryview(chunk)[4:-4]).to_bytes(4) == chunk[-4:]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _transparency(header: _Header, body: bytes) -> bytes:
    """The transparent colour in the scale to which Pillow brings the samples; of a palette, the alpha of each entry."""
    if header.colour not in (_GRAY, _RGB):
        return body
    top = (1 << header.bits) - 1
    keys = [key & top for (key,) in struct.iter_unpack(">H", body[: len(body) // 2 * 2])]
    if header.colour == _RGB and header.bits == 16:
        keys = [key >> 8 for key in keys]
    elif header.bits in (2, 4):
        keys = [key * 255 // top for key in keys]
    return struct.pack(f">{len(keys)}H", *keys)


def _profile(body: bytes) -> bytes | None:
    _, _, rest = body.partition(b"\0")
    return _inflated(rest[1:], _MAX_PROFILE) if rest[:1] == b"\0" else None


def _is_short(kind: bytes, text: bytes) -> bool:
    """Whether Pillow will inflate it."""
    _, _, rest = text.partition(b"\0")
    if kind == b"zTXt":
        return rest[:1] == b"\0" and _inflated(rest[1:], _MAX_TEXT) is not None
    if kind == b"iTXt" and rest[:1] != b"\0":
        return _inflated(rest[2:].split(b"\0", 2)[-1], _MAX_TEXT) is not None
    return True


def _inflated(data: bytes, limit: int) -> bytes | None:
    """What was compressed; None where it is damaged or longer than `limit` bytes."""
    decompressor = zlib.decompressobj()
    try:
        out = decompressor.decompress(data, limit)
    except zlib.error:
        return None
    return None if decompressor.unconsumed_tail else out
