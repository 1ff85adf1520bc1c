"""What a file is, by its bytes: its name and its media type are not trusted."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rankone.model.preprocessing.exif import numbers

SERVED: Final = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "HEIC")
"""Kinds that are accepted from anybody. HEIC needs the package pillow-heif."""
OWN: Final = (*SERVED, "BMP", "TIFF", "PPM")
"""Kinds that are accepted from the user's own disk: some of their decoders are too old to be shown to strangers."""

MEDIA_TYPES: Final = tuple(f"image/{kind.lower()}" for kind in SERVED)
"""Their content types."""

NAMES: Final = {"WEBP": "WebP"}
"""Of kinds that are not written as here."""

_MAGIC: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WEBP"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (8, b"CR\2\0", "a raw file of a camera (CR2)"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"FUJIFILMCCD-RAW", "a raw file of a camera (RAF)"),
    (0, b"IIU\0", "a raw file of a camera (RW2)"),
    (0, b"IIRO", "a raw file of a camera (ORF)"),
    (0, b"IIRS", "a raw file of a camera (ORF)"),
    (0, b"FOVb", "a raw file of a camera (X3F)"),
    (0, b"8BPS", "Photoshop (PSD)"),
    (0, b"gimp xcf", "GIMP (XCF)"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\0\0\1\0", "an icon (ICO)"),
    (0, b"\0\0\2\0", "a cursor (CUR)"),
    (0, b"icns", "an icon (ICNS)"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"DDS ", "DirectDraw (DDS)"),
    (0, b"qoif", "QOI"),
    (0, b"BPG\xfb", "BPG"),
    (0, b"AT&TFORM", "DjVu"),
    (0, b"\xd7\xcd\xc6\x9a", "Windows Metafile (WMF)"),
    (128, b"DICM", "DICOM"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"%!PS", "PostScript"),
    (0, b"%PDF", "PDF"),
)
_HEIC_BRANDS: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_RAW: Final = "a raw file of a camera (DNG, NEF, ARW or the like)"
_SUBFILE_TYPE, _MAKE, _SUB_DIRECTORIES, _DNG_VERSION = 0x00FE, 0x010F, 0x014A, 0xC612
_BITMAP_HEADERS: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})


@dataclass(frozen=True, kw_only=True)
class CheckedFile:
    """A file as it is handed to Pillow, after a walk through its structure: what its pixels depend on."""

    kind: str
    """A name of `OWN`."""
    data: bytes
    """The file, without the metadata over which Pillow stumbles."""
    scale: int = 1
    """By how much a JPEG is reduced while it is decoded: 1, 2, 4 or 8."""
    least_scale: int = 1
    """By how much it must be reduced to be within the limits, whatever is asked for."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """Metadata that was taken out of `data`, under Pillow's names: `exif`, `xmp`, `icc_profile`.
    Also `bits`: of the 16 of a sample, those that are used."""
    is_whole: bool = True
    """False where the file breaks off before its end."""
    has_all_scans: bool = True
    """False where a JPEG that breaks off lacks more than the end of its last scan."""


def kind_of(data: bytes) -> str | None:
    """A kind of `OWN`, or in words another kind of image; None for anything else."""
    if data[4:8] == b"ftyp":
        return _kind_by_brands(data)
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BITMAP_HEADERS:
        return "BMP"
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3] in (b" ", b"\t", b"\n", b"\r", b"#"):
        return "PPM"
    for at, magic, name in _MAGIC:
        if data.startswith(magic, at) and (name != "WEBP" or data.startswith(b"RIFF")):
            return _RAW if name == "TIFF" and _is_raw(data) else name
    return "SVG" if text_starts(data, rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!doctype svg[^>]*>\s*)?<svg\b") else None


def _kind_by_brands(data: bytes) -> str | None:
    """The kind of a file of boxes (ISO 14496-12), by the brands that its first one lists."""
    end = min(int.from_bytes(data[:4], "big"), len(data), 4096)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))]
    if brands[0] == b"crx ":
        return "a raw file of a camera (CR3)"
    if brands[0] in (b"avif", b"avis", b"mif1", b"msf1") and not {b"avif", b"avis"}.isdisjoint(brands):
        return "AVIF"
    if not _HEIC_BRANDS.isdisjoint(brands) or brands[0] in (b"mif1", b"msf1"):
        return "HEIC"
    return None


def _is_raw(tiff: bytes) -> bool:
    """Whether the first picture of a TIFF file is a preview of what a sensor saw."""
    try:
        entries = numbers(tiff)
    except struct.error:
        return False
    return _DNG_VERSION in entries or (entries.get(_SUBFILE_TYPE) == 1 and {_MAKE, _SUB_DIRECTORIES} <= entries.keys())


def text_starts(data: bytes, pattern: bytes) -> bool:
    """Whether a text begins with a pattern, blanks aside."""
    start = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip()
    return re.match(pattern, start, re.IGNORECASE | re.DOTALL) is not None
