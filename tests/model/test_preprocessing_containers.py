"""GIF, WebP and AVIF: sizes before they are opened, first frames, ends."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import AvifImagePlugin, Image

from rankone.model.preprocessing import ImageLimits, ImageTooLarge, UndecodableImage, decode
from tests.model.files import encoded, exif, noise, pixels

LIMITS = ImageLimits()


def gif(screen: tuple[int, int], frame: tuple[int, int, int, int], *before: bytes) -> bytes:
    """The beginning of a GIF of two colours: screen, extensions, and the first frame's place and size, without pixels."""
    table = b"\xff\0\0\0\0\xff"
    head = b"GIF89a" + struct.pack("<HH", *screen) + b"\x80\0\0" + table
    return head + b"".join(before) + b"," + struct.pack("<HHHH", *frame) + b"\0"


@pytest.mark.parametrize("form", ["GIF", "AVIF"])
def test_they_are_what_pillow_decodes(form: str) -> None:
    data = encoded(noise(24, 16).quantize(64) if form == "GIF" else noise(24, 16), form)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(pixels(decode(data, LIMITS)), pixels(image.convert("RGB")))


def test_an_avif_is_decoded_on_one_core() -> None:
    assert AvifImagePlugin._get_default_max_threads() == 1


def test_the_transparent_colour_of_a_gif_becomes_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    assert pixels(decode(encoded(image, "GIF", transparency=1), LIMITS)).tolist() == [[[255, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize("form", ["GIF", "AVIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_read(form: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "lime")]
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], duration=40)
    red, green, blue = pixels(decode(data, LIMITS))[0, 0].tolist()
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("form", ["AVIF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation_is_applied(form: str, orientation: int) -> None:
    image = noise(3, 2).resize((48, 32), Image.Resampling.NEAREST)
    options = {"quality": 100, "subsampling": "4:4:4"} if form == "AVIF" else {"lossless": True}
    turned = decode(encoded(image, form, exif=b"Exif\0\0" + exif(orientation), **options), LIMITS)
    methods = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90}
    expected = image.transpose(methods[orientation]) if orientation in methods else image
    assert turned.size == expected.size
    assert np.abs(pixels(turned).astype(int) - pixels(expected)).mean() < 8


@pytest.mark.parametrize("form", ["GIF", "AVIF"])
def test_their_size_is_checked_before_they_are_decoded(form: str) -> None:
    data = encoded(noise(30, 20), form)
    for limits, reason in (
        (ImageLimits(max_pixels=599), "30 x 20 pixels"),
        (ImageLimits(max_side=29), "30 x 20; no side"),
    ):
        with pytest.raises(ImageTooLarge, match=f"^{reason}"):
            decode(data, limits)
    assert decode(data, ImageLimits(max_pixels=600, max_side=30)).size == (30, 20)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (gif((60_000, 60_000), (0, 0, 1, 1)), "60000 x 60000"),
        (gif((1, 1), (0, 0, 60_000, 50_000)), "60000 x 50000"),
        (gif((1, 1), (50_000, 65_535, 9, 9)), "50009 x 65544"),
        (gif((9, 9), (0, 0, 60_000, 60_000), b"!\xfe\3abc\0", b"!\xf9\4\x08\0\0\0\0"), "60000 x 60000"),
        (gif((9, 9), (0, 0, 60_000, 60_000), b"\0junk!\xf9\4\x08\0\0\0\0"), "60000 x 60000"),
    ],
)
def test_a_gif_is_as_large_as_its_screen_and_first_frame(data: bytes, size: str) -> None:
    """Pillow takes room for both as soon as it opens the file, up to 4 GB."""
    with pytest.raises(ImageTooLarge, match=f"^{size}; no side"):
        decode(data, LIMITS)


def test_pillow_sees_the_frame_that_was_checked() -> None:
    """It reads on behind a NETSCAPE extension without content, and would take a comma for the length of a block."""
    data = encoded(noise(24, 16).quantize(64), "GIF", transparency=3)
    at = data.index(b"!\xf9")
    for extension in (b"!\xff\x0bNETSCAPE2.0\0", b"!\xff\x0bNETSCAPE2.0\3\1\0\0\0!\xfe\4text\0", b"\0"):
        found = decode(data[:at] + extension + data[at:], LIMITS)
        assert np.array_equal(pixels(found), pixels(decode(data, LIMITS)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GIF89a\1\0", "this GIF breaks off after 8 bytes; send the whole file"),
        (gif((4, 4), (0, 0, 4, 4)), "this GIF breaks off after 29 bytes"),
        (gif((4, 4), (0, 0, 4, 4))[:19], "this GIF breaks off after 19 bytes"),
        (gif((4, 4), (0, 0, 4, 4))[:19] + b";", "this GIF holds no picture"),
        (gif((4, 4), (0, 0, 4, 4), b"!\xfe\1a\0" * 100_000), "more than 100,000 blocks"),
        (gif((4, 4), (0, 0, 4, 4), b"!\xfe" + b"\1a" * 100_001 + b"\0"), "more than 100,000 blocks"),
        (encoded(noise(64, 64), "AVIF")[:500], "this AVIF breaks off after 500 bytes; send the whole file"),
        (encoded(noise(64, 64), "WEBP")[:500], "this WebP breaks off after 500 bytes; send the whole file"),
        (encoded(noise(4, 4), "WEBP")[:20], "this WebP breaks off after 20 bytes"),
    ],
)
def test_what_breaks_off_is_said(data: bytes, reason: str) -> None:
    with pytest.raises(UndecodableImage, match=f"^cannot be decoded: .*{reason}"):
        decode(data, LIMITS)


def test_a_whole_file_that_is_damaged_is_called_so() -> None:
    data = encoded(noise(64, 64), "WEBP", lossless=True)
    with pytest.raises(UndecodableImage, match="^cannot be decoded: this WebP is damaged; save it again$"):
        decode(data[:40] + bytes(len(data) - 40), LIMITS)
