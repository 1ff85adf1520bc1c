"""Pixels of any kind to 8-bit RGB, and colours to sRGB by the ICC profile in a file (LittleCMS).

Colours are converted after the resize, when an image has few pixels: that differs by half a level of 255 from before.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from rankone.model.preprocessing.errors import UndecodableImage

logger = logging.getLogger("rankone")

_WITH_ALPHA: Final = ("LA", "RGBA")
_UNKNOWN_RANGE: Final = ("I", "F")
_PROFILE: Final = "icc_profile"
_MAX_BYTES: Final = 4 << 20
"""Those of printing presses have up to 3 MB."""
_SPACES: Final = {"L": (b"GRAY", b"RGB "), "RGB": (b"RGB ",), "CMYK": (b"CMYK",)}
"""Colour spaces of a profile that fit the pixels of an image, by its mode."""
_SIDE: Final = 17
_CACHED: Final = 16

_Transform = Callable[[Image.Image], Image.Image] | None
_transforms: dict[tuple[bytes, str], _Transform] = {}
"""By digest of the profile and mode; None where nothing is to be converted. Not by the profile: those are megabytes."""


def to_rgb(image: Image.Image, bits: int = 16) -> Image.Image:
    """Transparency is composited on white; 16-bit gray keeps its high byte; of RGB no copy is made.

    Args:
        image: loaded.
        bits: how many bits of a 16-bit sample are used, according to the header.

    Raises:
        UndecodableImage: the samples have 32 bits, and the file does not define black and white.
    """
    if image.mode in _UNKNOWN_RANGE and image.format != "PPM":  # Pillow scales PPM by its header
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


def fitting(profile: Any, mode: str) -> bytes | None:
    """The profile, if its header is one for pixels of this Pillow mode (transparency aside)."""
    if not isinstance(profile, bytes) or not 128 < len(profile) <= _MAX_BYTES:
        return None
    if profile[36:40] != b"acsp":
        return None
    base = "L" if mode in ("1", "L", "LA") or mode.startswith("I") else "CMYK" if mode == "CMYK" else "RGB"
    return profile if profile[16:20] in _SPACES[base] else None


def tagged(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The same image, whose only metadata is its profile."""
    image.info = {_PROFILE: profile} if profile else {}
    return image


def to_srgb(image: Image.Image) -> Image.Image:
    """An image from `decode`, or one resized or cut from it, as sRGB: converted by the profile that it carries, if any.

    A profile that LittleCMS cannot read leaves the pixels as they are, and so does one that is sRGB itself.
    """
    profile = image.info.get(_PROFILE)
    is_gray = profile is not None and image.mode == "RGB" and profile[16:20] == b"GRAY"
    pixels = image.getchannel(0) if is_gray else image
    if profile is not None and (transform := _transform(profile, pixels.mode)) is not None:
        return tagged(transform(pixels), None)
    return image if image.mode == "RGB" else tagged(image.convert("RGB"), None)


def _transform(profile: bytes, mode: str) -> _Transform:
    key = (hashlib.sha256(profile).digest(), mode)
    if key not in _transforms:
        if len(_transforms) >= _CACHED:
            _transforms.clear()
        _transforms[key] = _built(profile, mode)
    return _transforms[key]


def _built(profile: bytes, mode: str) -> _Transform:
    """Relative colorimetric with black point compensation, as image editors do it: white stays white, and black black."""
    if _is_costly(profile):
        return None
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            # What it precalculates for gray is wrong by up to 10 levels. Only 256 colours are asked for.
            ImageCms.Flags.BLACKPOINTCOMPENSATION | (ImageCms.Flags.NOOPTIMIZE if mode == "L" else 0),
        )
        if mode == "CMYK":
            return transform.apply
        before = _probe(mode)
        after = transform.apply(Image.fromarray(before))
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    shown = before if mode == "RGB" else before[..., None]
    if np.abs(np.asarray(after).astype(int) - shown).max() <= 1:
        return None  # sRGB, or near it, under some name
    return transform.apply if mode == "RGB" else partial(_by_table, after.tobytes())


def _probe(mode: str) -> npt.NDArray[np.uint8]:
    """All grays, or a grid of colours."""
    if mode == "L":
        return np.arange(256, dtype=np.uint8)[None]
    levels = np.rint(np.linspace(0, 255, _SIDE)).astype(np.uint8)
    return np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(_SIDE, -1, 3)


def _by_table(colours: bytes, gray: Image.Image) -> Image.Image:
    """Gray by the RGB colours of its 256 values."""
    indices = gray.copy()
    indices.putpalette(colours)
    return indices.convert("RGB")


def _is_costly(profile: bytes) -> bool:
    """Whether it describes its colours by a program of any length (D2B tags), which may take minutes."""
    count = min(int.from_bytes(profile[128:132]), 1000)
    return any(profile[at : at + 3] == b"D2B" for at in range(132, 132 + 12 * count, 12))
