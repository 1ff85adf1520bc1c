"""JPEG: walks through the segments before anything is decoded (ITU-T T.81, annex B).

Refuses what would take too long: a progressive file may pass over its pixels thousands of times. Takes out the metadata,
which Pillow would parse in full, some of it in time that grows with the square of its length. Chooses the scale at which it
is decoded: libjpeg can give out the means of 2 x 2, 4 x 4 or 8 x 8 pixels in place of the pixels, without most of the work
behind the entropy code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from rankone.model.preprocessing.errors import ImageLimits, ImageTooLarge, UndecodableImage, check_size
from rankone.model.preprocessing.kinds import CheckedFile
from rankone.model.preprocessing.resize import Preprocessing

END: Final = b"\xff\xd9"

_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # neither a stuffed 0xff, nor a restart, nor filling
_EOI, _SOS, _APP0, _APP1, _APP2, _COMMENT = 0xD9, 0xDA, 0xE0, 0xE1, 0xE2, 0xFE
_FIRST_WITH_LENGTH, _SOI = 0xC0, 0xD8
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HIERARCHICAL: Final = frozenset({0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF})
_PROGRESSIVE: Final = (0xC2, 0xCA)

_MAX_SEGMENTS: Final = 4096
"""Usual are 10 to 100; each costs a few microseconds."""
_MAX_SCANS: Final = 1000
_REDUCTIONS: Final = (2, 4, 8)
_ROOM: Final = 2
"""A reduced JPEG keeps so many times the pixels to which its short side is resized, so that it is the resize that decides how
sharp the picture is. Less changes embeddings more than the compression does: docs/decisions/0030."""
_LEAST_SIDE: Final = 256
"""And at least so many: from the same pixels the service makes thumbnails with a long side of 256."""
_MAX_REDUCED: Final = 4
"""A JPEG that is decoded at reduced scale may have so many times the pixels of the limit: its bits are all read."""
_MAX_REDUCED_IN_SCANS: Final = 2.5
"""And one of several scans, which is kept in memory until the last, up to 6 bytes a pixel."""


@dataclass
class _Walk:
    """What was seen so far."""

    header: list[bytes] = field(default_factory=lambda: [b"\xff\xd8"])
    exif: list[bytes] = field(default_factory=list)
    icc: list[bytes] = field(default_factory=list)
    xmp: bytes | None = None
    size: tuple[int, int] | None = None
    is_progressive: bool = False
    missing: set[tuple[int, int]] = field(default_factory=set)
    """(component, coefficient) for the first and the last coefficient of each, until its last bit has come."""
    scans: int = 0
    scans_start: int = 0


def walk(data: bytes, limits: ImageLimits, spec: Preprocessing) -> CheckedFile:
    """Checks a JPEG, takes out its metadata and chooses its scale.

    Raises:
        ImageRejected: over the limits, of a kind that cannot be decoded, or one that takes too long.
    """
    seen, at, is_whole = _Walk(), 2, False
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, at)
        if found is None:
            break
        marker, start = data[found.start() + 1], found.end()
        if marker == _EOI:
            is_whole = True
            break
        if marker < _FIRST_WITH_LENGTH or marker == _SOI:
            at = start  # a decoder looks on behind it: what follows is not skipped
            continue
        at = start + max(2, int.from_bytes(data[start : start + 2]))
        if at > len(data):
            break
        _take(seen, marker, found.start(), data[start - 2 : at], limits)
    else:
        raise UndecodableImage.because(f"this JPEG has more than {_MAX_SEGMENTS:,} segments; save it again")
    if seen.size is None or not seen.scans:
        end = "holds no picture" if is_whole else f"breaks off after {len(data):,} bytes, before its picture begins"
        raise UndecodableImage.because(f"this JPEG {end}; send the whole file")
    in_scans = seen.is_progressive or seen.scans > 1
    least = least_reduction(seen.size, limits, spec.kept_side, in_scans=in_scans)
    return CheckedFile(
        kind="JPEG",
        data=b"".join(seen.header) + data[seen.scans_start :],
        scale=max(least, reduction(seen.size, spec)),
        least_scale=least,
        info=_info(seen),
        is_whole=is_whole,
        has_all_scans=not seen.missing,
    )


def reduction(size: tuple[int, int], spec: Preprocessing) -> int:
    """By how much a JPEG of this width and height should be reduced (1, 2, 4 or 8).

    As much as leaves the short side twice `spec.kept_side` and 256 pixels; 1 if `spec.jpeg` is `whole`.
    """
    least = max(_ROOM * spec.kept_side, _LEAST_SIDE)
    fitting = (scale for scale in reversed(_REDUCTIONS) if min(size) >= scale * least)
    return next(fitting, 1) if spec.jpeg == "reduced" else 1


def least_reduction(size: tuple[int, int], limits: ImageLimits, short_side: int, *, in_scans: bool = False) -> int:
    """By how much a JPEG must be reduced while it is decoded (1, 2, 4 or 8): 1 unless it is over the limits.

    Raises:
        ImageTooLarge: over the limits also when reduced, or left with fewer than `short_side` pixels.
    """
    try:
        check_size(size, limits)
    except ImageTooLarge:
        if size[0] * size[1] <= limits.max_pixels * (_MAX_REDUCED_IN_SCANS if in_scans else _MAX_REDUCED):
            for scale in _REDUCTIONS:
                width, height = (-(-side // scale) for side in size)
                if min(width, height) < short_side:
                    break
                if max(width, height) <= limits.max_side and width * height <= limits.max_pixels:
                    return scale
        raise
    return 1


def _take(seen: _Walk, marker: int, start: int, segment: bytes, limits: ImageLimits) -> None:
    """Notes one segment, which begins at `start` of the file with its marker."""
    body = segment[4:]
    if marker in _FRAMES:
        _take_frame(seen, marker, body, limits)
    if marker == _SOS:
        seen.scans_start = seen.scans_start or start
        _take_scan(seen, body, limits)
    elif not seen.scans:
        if marker == _APP1 and body.startswith(b"Exif\0\0"):
            seen.exif.append(body[6:] if seen.exif else body)
        elif marker == _APP1 and body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            seen.xmp = body.split(b"\0", 1)[1]
        elif marker == _APP2 and body.startswith(b"ICC_PROFILE\0"):
            seen.icc.append(body[12:])
        if not _APP0 <= marker <= _COMMENT or body.startswith((b"JFIF\0", b"Adobe")):
            seen.header.append(segment)


def _take_frame(seen: _Walk, marker: int, body: bytes, limits: ImageLimits) -> None:
    if len(body) < 6:
        raise UndecodableImage.because("the frame header of this JPEG is too short; save it again")
    height, width, components = int.from_bytes(body[1:3]), int.from_bytes(body[3:5]), body[5]
    if marker in _HIERARCHICAL:
        raise UndecodableImage.because("this is a hierarchical JPEG; save it as an ordinary one")
    if body[0] != 8:
        raise UndecodableImage.because(f"this is a JPEG of {body[0]}-bit samples; save it with 8 bits")
    if components not in (1, 3, 4):
        raise UndecodableImage.because(f"this JPEG has {components} channels; save it with 1, 3 or 4")
    if not (width and height):
        raise UndecodableImage.because(f"the header of this JPEG says {width} x {height} pixels; save it again")
    if width * height > _MAX_REDUCED * limits.max_pixels:
        check_size((width, height), limits)
    seen.size, seen.is_progressive = (width, height), marker in _PROGRESSIVE
    seen.missing = {(identifier, end) for identifier in body[6 : 6 + 3 * components : 3] for end in (0, 63)}


def _take_scan(seen: _Walk, body: bytes, limits: ImageLimits) -> None:
    if seen.size is None or len(body) < 4 or len(body) < 4 + 2 * body[0]:
        raise UndecodableImage.because("a scan of this JPEG has no complete header; save it again")
    seen.scans += 1
    width, height = seen.size
    if seen.scans > _MAX_SCANS or seen.scans * width * height > limits.max_scanned:
        raise UndecodableImage.because(
            f"this JPEG has too many scans: more than {seen.scans - 1} of {width} x {height} pixels; save it again"
        )
    first, last, precision = body[1 + 2 * body[0] : 4 + 2 * body[0]]
    components = body[1 : 1 + 2 * body[0] : 2]
    if not seen.is_progressive:
        first, last, precision = 0, 63, 0
    if precision & 15 == 0:
        seen.missing -= {(identifier, end) for identifier in components for end in (0, 63) if first <= end <= last}


def _info(seen: _Walk) -> dict[str, Any]:
    """Under Pillow's names. A profile that is not complete is none."""
    info: dict[str, Any] = {}
    if seen.exif:
        info["exif"] = b"".join(seen.exif)
    if seen.xmp is not None:
        info["xmp"] = seen.xmp
    parts = sorted(seen.icc)
    if parts and len(parts[0]) > 1 and parts[0][1] == len(parts):
        info["icc_profile"] = b"".join(part[2:] for part in parts)
    return info
