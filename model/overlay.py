"""Evidence as a picture: the shares of an image's locations, coloured over it."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from rankone.model.preprocessing import Preprocessing

_LONG_SIDE: Final = 512
_FOR: Final = np.array((255, 120, 0), np.float32)
_AGAINST: Final = np.array((0, 90, 255), np.float32)
"""Orange for the score, blue against it: a pair that readers with any colour vision tell apart."""
_OPACITY: Final = 0.8
"""Of the location with the largest share."""
_DIMMED: Final = 0.25
"""Brightness of what the network does not see."""
_GRAY: Final = 0.7
"""How far the picture loses its own colours, so that only shares are coloured."""
_GAP: Final = 8
_COMPRESSION: Final = 3
"""The highest level takes 0.8 s for a smooth picture, and saves a fifth of its bytes."""


def overlay(
    image: Image.Image,
    shares: npt.NDArray[np.floating],
    spec: Preprocessing,
    *,
    long_side: int = _LONG_SIDE,
    full: float | None = None,
) -> Image.Image:
    """The image with the shares (rows, columns) over the square that the network sees.

    Args:
        image: upright, of any size.
        shares: of the locations.
        spec: how the network sees an image.
        long_side: of the picture, in pixels.
        full: the share with the strongest colour, so that several maps can be compared; the map's own largest if not given.
    """
    scale = long_side / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    picture = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS), np.float32)
    picture = picture + _GRAY * (picture.mean(axis=2, keepdims=True) - picture)
    side = max(1, round(min(width, height) * spec.size / spec.kept_side))
    left, top = (width - side) // 2, (height - side) // 2
    seen = picture[top : top + side, left : left + side].copy()
    strength = _resized(shares / ((np.abs(shares).max() if full is None else full) or 1), side)[..., None]
    opacity = _OPACITY * np.abs(strength)
    picture *= _DIMMED
    picture[top : top + side, left : left + side] = (
        seen * (1 - opacity) + np.where(strength > 0, _FOR, _AGAINST) * opacity
    )
    return Image.fromarray(picture.round().astype(np.uint8))


def side_by_side(pictures: list[Image.Image]) -> Image.Image:
    """The pictures in a row, on white."""
    width = sum(picture.width for picture in pictures) + _GAP * (len(pictures) - 1)
    row = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white")
    left = 0
    for picture in pictures:
        row.paste(picture, (left, (row.height - picture.height) // 2))
        left += picture.width + _GAP
    return row


def png(picture: Image.Image) -> bytes:
    """The picture as a file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=_COMPRESSION)
    return buffer.getvalue()


def _resized(values: npt.NDArray[np.floating], side: int) -> npt.NDArray[np.float32]:
    """A map as (side, side), smooth between the centres of its locations, within [-1, 1]."""
    image = Image.fromarray(values.astype(np.float32), "F").resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32).clip(-1, 1)
