"""Why an image is refused, what one may cost, and what a file is that is not accepted.

ImageRejected                the caller's image, never a fault of ours
├── UnsupportedImageType     a file of another kind, or no image at all
├── ImageTooLarge            bytes, pixels or side over the limits
└── UndecodableImage         the right kind, but broken inside
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rankone.model.errors import RankoneError
from rankone.model.preprocessing.kinds import NAMES, kind_of, text_starts

_MAX_SCANS: Final = 40
"""Times that a JPEG of the largest size may pass over its pixels; smaller ones may do it more often. Usual are 1 or 10."""
_OTHER_FILES: Final[tuple[tuple[int, bytes, str], ...]] = (
    (8, b"AVI ", "a video (AVI)"),
    (8, b"WAVE", "sound (WAV)"),
    (4, b"ftyp", "a video (MP4 or MOV)"),
    (4, b"moov", "a video (MOV)"),
    (4, b"mdat", "a video (MOV)"),
    (4, b"wide", "a video (MOV)"),
    (0, b"\x1a\x45\xdf\xa3", "a video (WebM or MKV)"),
    (0, b"\0\0\1\xba", "a video (MPEG)"),
    (0, b"\0\0\1\xb3", "a video (MPEG)"),
    (0, b"FLV\1", "a video (FLV)"),
    (0, b"OggS", "sound or video (Ogg)"),
    (0, b"ID3", "sound (MP3)"),
    (0, b"fLaC", "sound (FLAC)"),
    (0, b"PK\3\4", "a ZIP archive or an Office document"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ", "an xz archive"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"SQLite format 3\0", "an SQLite database"),
    (0, b"\0\5\x16\7", "metadata of macOS (AppleDouble, a file named ._…)"),
    (0, b"version https://git-lfs", "a Git LFS pointer in place of the file: run `git lfs pull`"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a program"),
    (0, b"/9j/", "base64 text of a JPEG: decode it first"),
    (0, b"iVBORw0KGgo", "base64 text of a PNG: decode it first"),
    (0, b"data:image/", "a data: URI: decode it first"),
)
_TEXTS: Final = (
    (
        rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<(!doctype html|html|head|body)\b",
        "an HTML page: perhaps a download failed",
    ),
    (rb"<", "XML"),
    (rb"[{\[]", "JSON or other text"),
    (rb"[\t\n\r\f\x20-\x7e\x80-\xff]+\Z", "text"),
)
"""How they begin, in the order in which they are tried."""


class ImageRejected(RankoneError, ValueError):
    """An image that cannot be used; the message says why, in words for its sender."""


class UnsupportedImageType(ImageRejected):
    """The file is of a kind that is not accepted; the message says which, and what to do."""


class ImageTooLarge(ImageRejected):
    """The image has more bytes, pixels or a longer side than the limits allow."""


class UndecodableImage(ImageRejected):
    """The file begins well but cannot be decoded to its end."""

    @classmethod
    def because(cls, reason: str) -> UndecodableImage:
        """With a reason that ends the sentence "cannot be decoded: …"."""
        return cls(f"cannot be decoded: {reason}")


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """What an image may cost. Checked on the encoded bytes and the header, before a pixel is decoded."""

    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000
    max_side: int = 16_384

    @property
    def max_scanned(self) -> int:
        """Scans of a JPEG times its pixels."""
        return _MAX_SCANS * self.max_pixels


def check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    """Raises ImageTooLarge if an image of this width and height is over the limits."""
    width, height = size
    if max(width, height) > limits.max_side:
        raise ImageTooLarge(f"{width} x {height}; no side may be longer than {limits.max_side:,} pixels")
    if width * height > limits.max_pixels:
        raise ImageTooLarge(f"{width} x {height} pixels; at most {limits.max_pixels:,} are accepted")


def refusal(data: bytes, accepted: tuple[str, ...]) -> str:
    """What a file is whose kind is not in `accepted`, and what to do about it, for its sender."""
    kind = kind_of(data)
    if kind == "HEIC":
        return "this is HEIC: convert it to JPEG, or install rankone[heic]"
    if kind is not None:
        return f"this is {kind}: convert it to JPEG or PNG"
    names = [NAMES.get(name, name) for name in accepted if name != "HEIC"]
    return f"{_what(data)}; {', '.join(names[:-1])} and {names[-1]} are accepted"


def _what(data: bytes) -> str:
    """What a file is that is no image."""
    if not data:
        return "the file is empty"
    if not data.strip(b"\0"):
        return "not an image: the file holds nothing but zeros, as an unfinished download does"
    names = [name for at, magic, name in _OTHER_FILES if data.startswith(magic, at)]
    names += [name for pattern, name in _TEXTS if text_starts(data, pattern)]
    if names:
        return f"not an image: this is {names[0]}"
    return f"not an image that is known: the file begins with the bytes {data[:8].hex(' ')}"
