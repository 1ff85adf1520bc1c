"""Images that somebody sends who means ill, or whose camera does: each with the statuses that are right for it."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Final

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

OK: Final = {200}
REFUSED: Final = {413, 415, 422}
EITHER: Final = OK | REFUSED


@cache
def hostile() -> tuple[tuple[str, bytes, set[int]], ...]:
    """Name, bytes, and the statuses that may answer them. Made once, which takes seconds."""
    return (*_bombs(), *_liars(), *_oddities(), *_truncations())


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _noise(mode: str = "RGB", size: tuple[int, int] = (60, 40)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (*size[::-1], 4), np.uint8)
    return Image.fromarray(pixels, "RGBA").convert(mode)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(width: int, height: int, data: bytes, *chunks: bytes) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _bombs() -> Iterator[tuple[str, bytes, set[int]]]:
    yield "100 megapixels in a few kilobytes", _encoded(Image.new("1", (10_000, 10_000)), "png"), {413}
    yield "4 gigapixels by the header", _png(65_535, 65_535, zlib.compress(b"\0" * 1000)), {413}
    yield "36 megapixels with alpha", _encoded(Image.new("RGBA", (6_000, 6_000)), "png"), OK
    yield "1 x 65,500", _encoded(Image.new("RGB", (1, 65_500)), "jpeg"), {413}
    yield "1 x 16,384", _encoded(Image.new("RGB", (1, 16_384)), "png"), OK
    much = zlib.compress(bytes(200_000_000))
    text = _chunk(b"zTXt", b"comment\0\0" + much)
    yield "200 megabytes of compressed text", _png(2, 2, zlib.compress(b"\0" * 6), text), OK
    profile = _chunk(b"iCCP", b"icc\0\0" + much)
    yield "200 megabytes of compressed profile", _png(2, 2, zlib.compress(b"\0" * 6), profile), OK
    yield "more pixels than the header says", _png(2, 2, zlib.compress(b"\0" * 100_000_000)), EITHER


def _liars() -> Iterator[tuple[str, bytes, set[int]]]:
    png, jpeg = _encoded(_noise(), "png"), _encoded(_noise(), "jpeg")
    yield "empty", b"", REFUSED | {400}
    yield "text", b"not an image at all" * 10, {415}
    yield "the signature alone", png[:8], {422}
    yield "a JPEG that says it is a PNG", png[:8] + jpeg[8:], {422}
    yield "a PNG that says it is a JPEG", jpeg[:3] + png[3:], {422}
    yield "a GIF", _encoded(_noise("P"), "gif"), OK
    yield "a TIFF", _encoded(_noise(), "tiff"), {415}
    yield "an SVG", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', {415}
    yield "a wrong checksum", png[:20] + b"\xff" + png[21:], REFUSED
    yield "no pixels", _png(0, 0, zlib.compress(b"")), {422}
    yield "pixels that are no zlib stream", _png(2, 2, b"nonsense"), {422}
    yield "a RIFF that is no WebP", b"RIFF\x10\0\0\0WAVEfmt ", {415}
    yield "a broken WebP", b"RIFF\x10\0\0\0WEBPVP8 \xff\xff\xff\xff", {422}


def _oddities() -> Iterator[tuple[str, bytes, set[int]]]:
    for mode, kind in (
        ("CMYK", "jpeg"), ("L", "jpeg"), ("1", "png"), ("L", "png"), ("LA", "png"), ("P", "png"), ("PA", "png"),
        ("RGBA", "png"), ("RGBA", "webp"), ("I;16", "png"),
    ):  # fmt: skip
        image = _noise("L").convert("I;16") if mode == "I;16" else _noise("RGBA" if mode == "PA" else mode)
        yield f"{mode} in {kind}", _encoded(image.quantize(16) if mode == "PA" else image, kind), OK
    yield "palette and transparency", _encoded(_noise("P"), "png", transparency=3), OK
    frames = [_noise(), Image.new("RGB", (60, 40))]
    for kind in ("png", "webp"):
        yield f"animated {kind}", _encoded(frames[0], kind, save_all=True, append_images=frames[1:]), OK
    for orientation in (*range(10), 255, 65_535):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield f"EXIF orientation {orientation}", _encoded(_noise(), "jpeg", exif=exif), OK
    yield "broken EXIF", _encoded(_noise(), "jpeg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"), OK
    yield "600 kB of comments", _commented(_encoded(_noise(), "jpeg"), 10), OK
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 500_000)
    yield "500 kB of text", _encoded(_noise(), "png", pnginfo=info), OK
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    yield "a colour profile", _encoded(_noise(), "jpeg", icc_profile=profile), OK
    yield "progressive", _encoded(_noise(), "jpeg", progressive=True), OK
    yield "bytes behind the end", _encoded(_noise(), "png") + b"PK\x03\x04" * 1000, OK


def _commented(jpeg: bytes, count: int) -> bytes:
    comment = b"\xff\xfe" + struct.pack(">H", 60_002) + b"c" * 60_000
    return jpeg[:2] + comment * count + jpeg[2:]


def _truncations() -> Iterator[tuple[str, bytes, set[int]]]:
    """Cut at the start, in the middle and before the end of every chunk or segment."""
    for kind in ("png", "jpeg", "webp"):
        whole = _encoded(_noise(), kind)
        starts = {"png": _png_chunks, "jpeg": _jpeg_segments, "webp": _webp_chunks}[kind](whole)
        ends = [*starts[1:], len(whole)]
        cuts = {cut for start, end in zip(starts, ends, strict=True) for cut in (start, (start + end) // 2, end - 1)}
        for cut in sorted(cuts):
            yield f"{kind} of {cut} bytes of {len(whole)}", whole[:cut], EITHER


def _png_chunks(data: bytes) -> list[int]:
    at, starts = 8, []
    while at < len(data):
        starts.append(at)
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return starts


def _jpeg_segments(data: bytes) -> list[int]:
    return [at for at in range(len(data) - 1) if data[at] == 0xFF and data[at + 1] >= 0xC0]


def _webp_chunks(data: bytes) -> list[int]:
    at, starts = 12, []
    while at < len(data):
        starts.append(at)
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
    return starts
