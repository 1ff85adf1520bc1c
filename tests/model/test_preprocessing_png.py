from __future__ import annotations

import logging
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from rankone.model.preprocessing import ImageLimits, Preprocessing, UndecodableImage, decode
from tests.model.files import PNG_SIGNATURE, chunk, encoded, exif, header, noise, pixels, png, with_chunk

LIMITS = ImageLimits()
FIRST = Preprocessing(version=1, color="ignored", jpeg="whole")
PICTURE = encoded(noise(20, 30))
MEGABYTES = zlib.compress(bytes(3 << 20))


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"zTXt", b"Comment\0\0" + MEGABYTES),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + MEGABYTES),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + MEGABYTES),
        chunk(b"zTXt", b"Comment\0\7compressed in no known way"),
        chunk(b"iCCP", b"name\0\0" + MEGABYTES),
        chunk(b"iCCP", b"name\0\7"),
        chunk(b"iCCP", b""),
        chunk(b"gAMA", b""),
        chunk(b"pHYs", b""),
        chunk(b"sRGB", b""),
        chunk(b"cHRM", b"\0"),
        chunk(b"acTL", b"\0"),
        chunk(b"fcTL", b"\0"),
        chunk(b"acTL", bytes(8)),
        chunk(b"sBIT", b""),
        chunk(b"prVt", b"?" * 100),
        chunk(b"tIME", b"?" * 7)[:-4] + b"none",
        chunk(b"tEXt", b"\xff" * 100)[:-1] + b"\0",
    ],
)
def test_no_chunk_beside_the_picture_makes_it_worse(extra: bytes) -> None:
    assert np.array_equal(pixels(decode(with_chunk(PICTURE, extra), LIMITS)), pixels(noise(20, 30)))
    behind = PICTURE[:-12] + extra + PICTURE[-12:]
    assert np.array_equal(pixels(decode(behind, LIMITS)), pixels(noise(20, 30)))


def test_a_damaged_transparency_is_left_out() -> None:
    gray = np.array([[10, 20]], np.uint8)
    key = struct.pack(">H", 10)
    damaged = chunk(b"tRNS", key)[:-4] + b"none"
    assert pixels(decode(png(gray, 8, chunk(b"tRNS", key)), LIMITS))[0, :, 0].tolist() == [255, 20]
    assert pixels(decode(png(gray, 8, damaged), LIMITS))[0, :, 0].tolist() == [10, 20]


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_gray_is_compared_at_its_own_depth(bits: int) -> None:
    """By all values of a sample (of 16 bits: every 257th), each of which is the transparent one in its turn."""
    top = (1 << bits) - 1
    values = np.unique(np.linspace(0, top, min(top + 1, 256)).astype(np.uint16))
    shown = [value >> 8 if bits == 16 else value * 255 // top for value in values.tolist()]
    for at in range(0, len(values), max(1, len(values) // 16)):
        data = png(values[None], bits, chunk(b"tRNS", struct.pack(">H", values[at])))
        assert pixels(decode(data, LIMITS))[0, :, 0].tolist() == [*shown[:at], 255, *shown[at + 1 :]]


@pytest.mark.parametrize("bits", [8, 16])
def test_so_is_the_transparent_colour(bits: int) -> None:
    colours = np.array([[[1, 2, 3], [200, 100, 50]]], np.uint16)
    if bits == 16:
        colours = colours * np.uint16(256) + np.uint16(7)
    data = png(colours, bits, chunk(b"tRNS", struct.pack(">HHH", *colours[0, 1].tolist())))
    assert pixels(decode(data, LIMITS)).tolist() == [[[1, 2, 3], [255, 255, 255]]]


def test_of_a_transparent_colour_only_the_bits_of_a_sample_count() -> None:
    """As the standard has it: "the least significant bits are used and the others are 0", or should be."""
    data = png(np.array([[3, 5]], np.uint8), 4, chunk(b"tRNS", b"\xff\xf3"))
    assert pixels(decode(data, LIMITS))[0, :, 0].tolist() == [255, 85]


def test_version_1_keeps_its_pixels() -> None:
    gray = png(np.array([[3, 15]], np.uint8), 4, chunk(b"tRNS", b"\0\3"))
    assert pixels(decode(gray, LIMITS, FIRST))[0, :, 0].tolist() == [51, 255]
    twelve = png(np.array([[0, 4095]], np.uint16), 16, chunk(b"sBIT", b"\x0c"))
    assert pixels(decode(twelve, LIMITS, FIRST))[0, :, 0].tolist() == [0, 15]


def test_12_bit_samples_at_the_bottom_of_16_are_scaled_where_the_header_tells() -> None:
    samples = np.array([[0, 15, 16, 2048, 4095]], np.uint16)
    said = decode(png(samples, 16, chunk(b"sBIT", b"\x0c")), LIMITS)
    assert pixels(said)[0, :, 0].tolist() == [0, 0, 0, 127, 255]
    at_the_top = decode(png(samples * np.uint16(16), 16, chunk(b"sBIT", b"\x0c")), LIMITS)
    assert pixels(at_the_top)[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    all_bits = decode(png(np.array([[7, 65_535]], np.uint16), 16, chunk(b"sBIT", b"\x0c")), LIMITS)
    assert pixels(all_bits)[0, :, 0].tolist() == [0, 255]


def test_a_dark_image_whose_bits_are_where_they_belong_stays_dark() -> None:
    dark = np.arange(0, 4096, 16, dtype=np.uint16)[None]
    assert pixels(decode(png(dark, 16, chunk(b"sBIT", b"\x0c")), LIMITS)).max() == 15


def test_where_the_header_says_nothing_the_log_says_that_it_is_nearly_black(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "rankone"):
        decode(png(np.array([[0, 4095]], np.uint16), 16), LIMITS)
        decode(png(np.array([[0, 4096]], np.uint16), 16), LIMITS)
        decode(png(np.array([[0, 0]], np.uint16), 16), LIMITS)
    assert caplog.messages == ["an image of 16-bit samples is nearly black: its largest is 4095 of 65,535"]


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"eXIf", exif(6)),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n    26\n" + exif(6).hex().encode())),
        chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<tiff:Orientation>6</tiff:Orientation>")),
    ],
)
def test_an_orientation_is_found_wherever_it_was_found_before(extra: bytes) -> None:
    turned = pixels(noise(20, 30).transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(pixels(decode(with_chunk(PICTURE, extra), LIMITS)), turned)
    assert np.array_equal(pixels(decode(PICTURE[:-12] + extra + PICTURE[-12:], LIMITS)), turned)


def palette(*chunks: bytes) -> bytes:
    pixel = chunk(b"IDAT", zlib.compress(b"\0\0"))
    return header(1, 1, 8, 3) + b"".join(chunks) + pixel + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (palette(), "a palette image, but no palette"),
        (palette(chunk(b"PLTE", b"abc")[:-1] + b"?"), "the palette of this PNG is damaged"),
        (PNG_SIGNATURE, "breaks off after 8 bytes"),
        (header(4, 4), "breaks off after 33 bytes, before its pixels"),
        (header(4, 4) + chunk(b"IEND", b""), "has no pixels"),
        (header(4, 4)[:-1] + b"?" + PICTURE[33:], "the header of this PNG is damaged"),
        (header(4, 4, 3) + PICTURE[33:], "colour type 2 with 3 bits, which does not exist"),
        (header(4, 4, 8, 5) + PICTURE[33:], "colour type 5 with 8 bits"),
        (header(0, 4) + PICTURE[33:], "does not begin with the header"),
        (PNG_SIGNATURE + PICTURE[33:], "does not begin with the header"),
        (with_chunk(PICTURE, chunk(b"CgBI", b"1234")), "rewritten by Xcode"),
        (PICTURE[:100], "breaks off after 100 bytes"),
        (PICTURE[:60] + b"?" * 20 + PICTURE[80:], "this PNG is damaged"),
        (header(4, 4) + chunk(b"tIME", b"") * 100_000, "more than 100,000 chunks"),
    ],
)
def test_what_is_broken_is_said(data: bytes, reason: str) -> None:
    with pytest.raises(UndecodableImage, match=f"^cannot be decoded: .*{reason}"):
        decode(data, LIMITS)


def test_pixels_in_many_chunks_with_others_between_are_read() -> None:
    """Also where the last checksum and the end are missing, as before."""
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels(noise(20, 30))))
    pieces = [chunk(b"IDAT", data[at : at + 100]) + chunk(b"tIME", b"") for at in range(0, len(data), 100)]
    for end in (chunk(b"IEND", b""), b"", b"garbage"):
        found = decode(header(20, 30) + b"".join(pieces) + end, LIMITS)
        assert np.array_equal(pixels(found), pixels(noise(20, 30)))
