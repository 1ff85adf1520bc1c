"""Whatever the bytes are, an image is decoded or refused in words for its sender, and what it costs is counted first."""

from __future__ import annotations

import random
import re
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rankone.model.preprocessing import (
    OWN,
    ImageLimits,
    ImageRejected,
    Preprocessing,
    UndecodableImage,
    decode,
    png,
    resize_and_crop,
)
from tests.model.files import chunk, encoded, exif, header, noise, pixels, scan_bomb, segment, with_chunk, with_segments
from tests.model.profiles import rgb_profile

LIMITS = ImageLimits(max_pixels=100_000, max_side=2000)
SPEC = Preprocessing(size=8)
MUTATIONS = 150
REASONS = re.compile(
    r"cannot be decoded: (this |the |a scan |its samples )[^<>]+"
    r"|\d[\d,]* (bytes|x \d+).*|this is .*|not an image.*|the file is empty.*"
)


def files() -> dict[str, bytes]:
    """One of every format, mode and option that is coded in its own way."""
    image = noise(9, 7).resize((40, 30), Image.Resampling.BICUBIC)
    deep = Image.fromarray(pixels(image.convert("L")).astype(np.uint16) * 257)
    options: dict[str, Any] = {"icc_profile": rgb_profile("prophoto", 1.8), "exif": b"Exif\0\0" + exif(6)}
    moving: dict[str, Any] = {"save_all": True, "append_images": [noise(40, 30)]}
    made = {
        "jpeg": encoded(image, "JPEG", **options),
        "progressive jpeg": encoded(image, "JPEG", progressive=True),
        "cmyk jpeg": encoded(image.convert("CMYK"), "JPEG"),
        "png": encoded(image, **options),
        "png of 16 bits": encoded(deep, transparency=257),
        "png of a palette": encoded(image.quantize(16), transparency=3),
        "interlaced png": with_chunk(encoded(image.convert("RGBA")), chunk(b"tEXt", b"Comment\0text")),
        "animated png": encoded(image, **moving),
        "webp": encoded(image, "WEBP", **options),
        "lossless webp": encoded(image.convert("RGBA"), "WEBP", lossless=True),
        "animated webp": encoded(image, "WEBP", **moving),
        "avif": encoded(image, "AVIF", **options),
        "gif": encoded(image.quantize(16), "GIF", transparency=3),
        "animated gif": encoded(image, "GIF", **moving),
    }
    own = {form: encoded(image, form) for form in ("BMP", "TIFF", "PPM")}
    return {**made, **own, "packed tiff": encoded(image, "TIFF", compression="tiff_lzw", **options)}


FILES = files()


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, lost, doubled or cut off, as often in the header as anywhere."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(min(len(out), rng.choice((100, len(out)))))
        match rng.randrange(5):
            case 0 | 1:
                out[at] = rng.choice((0, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 2:
                del out[at : at + rng.randint(1, 8)]
            case 3:
                out[at:at] = out[at // 2 : at // 2 + rng.randint(1, 64)]
            case 4 if rng.random() < 0.2:
                del out[at:]
        out = out or bytearray(b"\0")
    return bytes(out)


@pytest.mark.parametrize("name", FILES)
def test_mutations_are_decoded_or_refused_in_words(name: str) -> None:
    rng = random.Random(name)
    reasons: list[str] = []
    for _ in range(MUTATIONS):
        data = mutated(FILES[name], rng)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = resize_and_crop(decode(data, LIMITS, SPEC, OWN), SPEC)
        except ImageRejected as error:
            reasons.append(str(error))
        else:
            assert (image.mode, image.size) == ("RGB", (8, 8))
    assert 0 < len(reasons) < MUTATIONS
    assert [reason for reason in reasons if not REASONS.fullmatch(reason)] == []


@pytest.mark.parametrize("name", FILES)
def test_the_originals_are_decoded(name: str) -> None:
    assert resize_and_crop(decode(FILES[name], LIMITS, SPEC, OWN), SPEC).size == (8, 8)


def test_a_bomb_of_scans_is_refused_by_its_segments() -> None:
    """567 kB of refinement scans over 7000 x 7000 pixels take 12 s to decode."""
    with pytest.raises(UndecodableImage, match="too many scans: more than 40 of 7000 x 7000 pixels"):
        decode(scan_bomb(7000, 5000), ImageLimits())


def test_ten_thousands_of_exif_segments_are_refused() -> None:
    data = with_segments(encoded(noise(8, 8), "JPEG"), segment(0xE1, b"Exif\0\0" + bytes(400)) * 20_000)
    with pytest.raises(UndecodableImage, match="more than 4,096 segments"):
        decode(data, ImageLimits())


def test_exif_in_a_png_whose_entries_share_their_data_takes_no_room() -> None:
    """Pillow would copy 60,000 times 1 MB."""
    entries = b"".join(struct.pack("<HHII", number, 2, 1_000_000, 0) for number in range(1000, 61_000))
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", 60_000) + entries + bytes(300_000)
    assert decode(with_chunk(encoded(noise(8, 8)), chunk(b"eXIf", data)), LIMITS).size == (8, 8)


def test_little_is_inflated_however_many_chunks_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 MB of such chunks would be 20 GB."""
    asked: list[int] = []
    real = png._inflated

    def counted(data: bytes, limit: int) -> bytes | None:
        asked.append(limit)
        return real(data, limit)

    monkeypatch.setattr(png, "_inflated", counted)
    text = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(1_000_000)))
    profile = chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(4_000_000)))
    data = with_chunk(encoded(noise(8, 6)), text * 1000 + profile * 1000)
    assert np.array_equal(pixels(decode(data, LIMITS)), pixels(noise(8, 6)))
    assert sum(asked) < 32_000_000


@pytest.mark.parametrize("orientation", [0, 9, 77, 65_535])
def test_an_orientation_that_means_nothing_turns_nothing(orientation: int) -> None:
    data = with_chunk(encoded(noise(8, 6)), chunk(b"eXIf", exif(orientation)))
    assert np.array_equal(pixels(decode(data, LIMITS)), pixels(noise(8, 6)))


@pytest.mark.parametrize(("count", "turned"), [(1, True), (2, True), (3, False), (0, False)])
def test_an_orientation_of_several_numbers_is_its_first(count: int, turned: bool) -> None:
    """As Pillow reads it. Where three do not fit into the entry, it holds their place instead."""
    data = exif(6)[:14] + struct.pack("<I", count) + exif(6)[18:]
    found = decode(with_chunk(encoded(noise(8, 6)), chunk(b"eXIf", data)), LIMITS)
    assert found.size == ((6, 8) if turned else (8, 6))


def test_a_header_that_lies_about_its_pixels_is_refused() -> None:
    short = header(300, 300) + encoded(noise(20, 30))[33:]
    with pytest.raises(UndecodableImage, match="this PNG is damaged; save it again"):
        decode(short, LIMITS)
