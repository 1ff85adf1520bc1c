"""Bytes -> checked, upright image."""

from __future__ import annotations

import hashlib
import importlib
import io
from collections.abc import Mapping
from typing import Any, Final

# The plugins by name, so that nothing is left to be loaded when the first image comes, under a limit of memory.
from PIL import AvifImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin  # noqa: F401

from rankone.model.preprocessing import containers, jpeg, kinds, png
from rankone.model.preprocessing.color import fitting, tagged, to_rgb
from rankone.model.preprocessing.errors import (
    ImageLimits,
    ImageRejected,
    ImageTooLarge,
    UndecodableImage,
    UnsupportedImageType,
    check_size,
    refusal,
)
from rankone.model.preprocessing.exif import TURN, turn, upright
from rankone.model.preprocessing.kinds import CheckedFile
from rankone.model.preprocessing.resize import Preprocessing

Image.MAX_IMAGE_PIXELS = None
"""Pillow's own limit holds for the whole process, and strikes before `ImageLimits`, which may be larger. Whoever opens an image
here checks its size by `check_size` before it is decoded, and that of a WebP or GIF before it is opened."""
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
"""A process decodes one image, on one core."""

_PLAIN: Final = Preprocessing(color="ignored", jpeg="whole")
_TURNED_LATE: Final = 4
"""The first version that resizes images before it turns them upright."""
_FILLING: Final = b"\x5a\xa5\x00\x13" * 64
"""Replaces the missing end of a JPEG. A picture that lacks data decodes differently with these bits than with zeros."""


def _has_heic() -> bool:
    try:
        heif = importlib.import_module("pillow_heif")
    except ImportError:
        return False
    heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
    return True


_HAS_HEIC: Final = _has_heic()


def decode(
    data: bytes, limits: ImageLimits, spec: Preprocessing = _PLAIN, accepted: tuple[str, ...] = kinds.SERVED
) -> Image.Image:
    """An image file to an upright 8-bit RGB image that carries its colour profile, if any, as `info["icc_profile"]`.

    Orientation is applied; transparency is composited on white; 16-bit samples keep their high byte; palette, gray and
    CMYK become RGB; of an animation only the first frame is read. CMYK with a profile stays CMYK where `spec` manages
    colours, until `resize_and_crop` or `to_srgb`. A JPEG with many times the pixels that `spec` keeps is decoded at a half,
    a quarter or an eighth of its size, if `spec` says so, or if it is over the limits and still has the pixels that `spec`
    resizes its short side to.

    Args:
        data: the file.
        limits: what it may cost.
        spec: decides by which version of decoding, whether colours are managed, and how small a JPEG gets. Whoever looks
            at parts of the image closer than `to_input` gives a longer `short_side`.
        accepted: kinds of file, such as `SERVED` or `OWN`.

    Raises:
        ImageRejected: one of its subclasses, with a reason for the image's sender.
        MemoryError: there is not enough for it; that is for the caller to judge.
    """
    return upright(decode_as_stored(data, limits, spec, accepted))


def decode_as_stored(
    data: bytes, limits: ImageLimits, spec: Preprocessing = _PLAIN, accepted: tuple[str, ...] = kinds.SERVED
) -> Image.Image:
    """As `decode`, but not turned upright yet, for callers who shrink the image first and so have less to turn.

    `upright` turns it, and so does `resize_and_crop`. Before version 4 images were turned before they were resized: for a
    `spec` of these versions it is upright already.
    """
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(f"{len(data):,} bytes; at most {limits.max_bytes:,} are accepted")
    kind = kinds.kind_of(data)
    if kind is None or kind not in accepted or (kind == "HEIC" and not _HAS_HEIC):
        raise UnsupportedImageType(refusal(data, accepted))
    source = _walk(kind, data, limits, spec)
    try:
        return _finished(_loaded(source, limits), source, spec)
    except (ImageRejected, MemoryError):
        raise
    except Exception as error:  # decoders raise whatever they like on hostile bytes; all of it is the image's fault
        raise _broken(source, len(data)) from error


def _walk(kind: str, data: bytes, limits: ImageLimits, spec: Preprocessing) -> CheckedFile:
    match kind:
        case "JPEG":
            return jpeg.walk(data, limits, spec)
        case "PNG":
            return png.walk(data, limits, spec.version)
        case "WEBP":
            return containers.walk_webp(data, limits)
        case "GIF":
            return containers.walk_gif(data, limits)
        case "AVIF" | "HEIC":
            return containers.walk_boxes(kind, data)
    return CheckedFile(kind=kind, data=data)


def _loaded(source: CheckedFile, limits: ImageLimits) -> Image.Image:
    try:
        return _opened(source, source.data, limits, source.scale)
    except OSError:
        if source.kind != "JPEG" or source.is_whole or not source.has_all_scans:
            raise
    # The end of the file is missing. If nothing else is, the picture does not depend on what follows; at a reduced scale it
    # might not depend on it and lack something all the same.
    data = source.data.removesuffix(jpeg.END[:1])
    other = hashlib.sha256(_opened(source, data + _FILLING + jpeg.END, limits, source.least_scale).tobytes()).digest()
    image = _opened(source, data + jpeg.END, limits, source.least_scale)
    if hashlib.sha256(image.tobytes()).digest() != other:
        raise OSError("the picture is not complete")
    return image if source.scale == source.least_scale else _opened(source, data + jpeg.END, limits, source.scale)


def _opened(source: CheckedFile, data: bytes, limits: ImageLimits, scale: int) -> Image.Image:
    name = "HEIF" if source.kind == "HEIC" else source.kind
    with Image.open(io.BytesIO(data), formats=(name,)) as image:
        if source.least_scale == 1:  # the limits are those of the whole image, however much of it is decoded
            check_size(image.size, limits)
        if scale > 1:
            image.draft(None, (image.width // scale, image.height // scale))
        check_size(image.size, limits)
        image.load()
        return image


def _finished(image: Image.Image, source: CheckedFile, spec: Preprocessing) -> Image.Image:
    info: Mapping[Any, Any] = {**image.info, **source.info}
    profile = fitting(info.get("icc_profile"), image.mode)
    if image.mode == "CMYK" and not (profile and spec.color == "managed"):
        profile = None
    pixels = image if image.mode == "CMYK" and profile else to_rgb(image, source.info.get("bits", 16))
    image = tagged(pixels, profile)
    if (method := turn(info)) is not None:
        image.info[TURN] = method
    return image if spec.version >= _TURNED_LATE else upright(image)


def _broken(source: CheckedFile, length: int) -> UndecodableImage:
    name = kinds.NAMES.get(source.kind, source.kind)
    if source.is_whole:
        return UndecodableImage.because(f"this {name} is damaged; save it again")
    return UndecodableImage.because(f"this {name} breaks off after {length:,} bytes; send the whole file")
