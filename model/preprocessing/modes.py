"""An image of any mode of Pillow to 8-bit RGB."""

from __future__ import annotations

import logging
from typing import Final

import numpy as np
from PIL import Image

from rankone.model.preprocessing.errors import UndecodableImage

_WITH_ALPHA: Final = ("LA", "RGBA")
_UNKNOWN_RANGE: Final = ("I", "F")

logger = logging.getLogger("rankone")


def to_rgb(image: Image.Image, bits: int = 16) -> Image.Image:
    """Transparency is composited on white; 16-bit gray keeps its high byte; of RGB no copy is made.

    Args:
        image: loaded.
        bits: of 16-bit samples those that are used, as the header says.

    Raises:
        UndecodableImage: 32-bit samples, of which nobody knows what is black and what is white.
    """
    if (
        image.mode in _UNKNOWN_RANGE and image.format != "PPM"
    ):  # whose header says what is white, and Pillow scales by it
        raise UndecodableImage.because("its samples have 32 bits and no known range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        return _from_16_bit(image, bits)
    if image.has_transparency_data:
        return _on_white(image if image.mode in _WITH_ALPHA else image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")  # of RGB it makes a copy


def _on_white(image: Image.Image) -> Image.Image:
    """Pasting writes each pixel once; `alpha_composite` gives the same ones by way of three more images of full size."""
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image)
    return white


def _from_16_bit(image: Image.Image, bits: int) -> Image.Image:
    """By the high byte, as Pillow reads 16-bit RGB; `convert` would clip everything over 255 to white.

    A file may say that it uses 12 bits (sBIT). They belong at the top of the 16; where all samples are small and some
    have lower bits, they were left at the bottom, and the picture would be black.
    """
    samples = np.asarray(image)
    largest = int(samples.max())
    if largest >> bits == 0 and bool((samples & ((1 << (16 - bits)) - 1)).any()):
        gray = (samples.astype(np.uint32) * 255 // ((1 << bits) - 1)).astype(np.uint8)
    else:
        gray = (samples >> 8).astype(np.uint8)
        if 0 < largest < 1 << 12:
            logger.warning("an image of 16-bit samples is nearly black: its largest is %d of 65,535", largest)
    if "transparency" in image.info:
        gray[samples == image.info["transparency"]] = 255
    return Image.fromarray(gray).convert("RGB")
