"""Why an image is refused, and what one may cost.

ImageRejected                the caller's image, never a fault of ours
├── UnsupportedImageType     a file of another kind, or no image at all
├── ImageTooLarge            bytes, pixels or side over the limits
└── UndecodableImage         the right kind, but broken inside
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rankone.model.errors import RankoneError

_MAX_SCANS: Final = 40
"""Times that a JPEG of the largest size may pass over its pixels; smaller ones may do it more often. Usual are 1 or 10."""


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
class Limits:
    """What an image may cost. Checked on the encoded bytes and the header, before a pixel is decoded."""

    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000
    max_side: int = 16_384

    @property
    def max_scanned(self) -> int:
        """Scans of a JPEG times its pixels."""
        return _MAX_SCANS * self.max_pixels


def check_size(size: tuple[int, int], limits: Limits) -> None:
    """Raises ImageTooLarge if an image of this width and height is over the limits."""
    width, height = size
    if max(width, height) > limits.max_side:
        raise ImageTooLarge(f"{width} x {height}; no side may be longer than {limits.max_side:,} pixels")
    if width * height > limits.max_pixels:
        raise ImageTooLarge(f"{width} x {height} pixels; at most {limits.max_pixels:,} are accepted")
