from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from rankone.model.preprocessing import (
    ImageLimits,
    ImageRejected,
    ImageTooLarge,
    Preprocessing,
    UndecodableImage,
    decode,
    preprocess,
    resize_and_crop,
    to_array,
)
from tests.model.files import chunk, encoded, header, noise, pixels, png

LIMITS = ImageLimits()


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_lossless_formats_come_out_as_they_went_in(form: str) -> None:
    image = noise(20, 30)
    assert np.array_equal(pixels(decode(encoded(image, form, lossless=True), LIMITS)), pixels(image))


def test_jpeg_is_what_pillow_decodes() -> None:
    data = encoded(noise(24, 16), "JPEG", quality=90)
    assert np.array_equal(pixels(decode(data, LIMITS)), pixels(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(noise(20, 30), exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(pixels(decode(data, LIMITS)), pixels(expected))


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"", b"II*\0\xff\xff\xff\xff"])
def test_unreadable_exif_leaves_the_image_as_stored(exif: bytes) -> None:
    image = noise(20, 30)
    assert np.array_equal(pixels(decode(encoded(image, exif=exif), LIMITS)), pixels(image))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_every_value_at_every_alpha_is_composited_on_white_and_rounded(mode: str) -> None:
    value, alpha = np.indices((256, 256))
    channels = [value] * (len(mode) - 1) + [alpha]
    data = encoded(Image.fromarray(np.stack(channels, axis=2).astype(np.uint8), mode))
    expected = np.rint((value * alpha + 255 * (255 - alpha)) / 255)
    assert np.array_equal(pixels(decode(data, LIMITS)), np.stack([expected] * 3, axis=2))


def test_palettes_with_and_without_transparency() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putdata([0, 1])
    assert pixels(decode(encoded(palette), LIMITS)).tolist() == [[[255, 0, 0], [0, 0, 255]]]
    assert pixels(decode(encoded(palette, transparency=1), LIMITS)).tolist() == [[[255, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize("mode", ["L", "1"])
def test_gray_and_black_and_white_become_rgb(mode: str) -> None:
    image = noise(8, 8, "L").convert(mode)
    assert np.array_equal(pixels(decode(encoded(image), LIMITS)), pixels(image.convert("RGB")))


def test_cmyk_jpeg_becomes_rgb() -> None:
    data = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
    red, green, blue = pixels(decode(data, LIMITS))[0, 0].tolist()
    assert red > 240
    assert max(green, blue) < 15


def test_16_bit_gray_is_scaled_not_clipped_and_like_16_bit_rgb() -> None:
    samples = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    assert pixels(decode(encoded(Image.fromarray(samples)), LIMITS))[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    rgb = decode(png(np.repeat(samples[..., None], 3, axis=2), 16), LIMITS)
    assert pixels(rgb)[0, :, 0].tolist() == [0, 0, 1, 128, 255]


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "AVIF"])
def test_truncation_anywhere_is_refused_as_undecodable(form: str) -> None:
    data = encoded(noise(64, 64), form)
    for kept in (16, 40, len(data) // 2, len(data) - 40):
        with pytest.raises(UndecodableImage, match="cannot be decoded"):
            decode(data[:kept], LIMITS)


def test_limits_hold_for_bytes_pixels_and_side() -> None:
    data = encoded(noise(30, 20))
    with pytest.raises(ImageTooLarge, match=rf"{len(data):,} bytes; at most 100 are accepted"):
        decode(data, ImageLimits(max_bytes=100))
    with pytest.raises(ImageTooLarge, match="30 x 20 pixels; at most 599 are accepted"):
        decode(data, ImageLimits(max_pixels=599))
    with pytest.raises(ImageTooLarge, match="30 x 20; no side may be longer than 29"):
        decode(data, ImageLimits(max_side=29))
    assert decode(data, ImageLimits(max_bytes=len(data), max_pixels=600, max_side=30)).size == (30, 20)


def test_size_is_read_from_the_header_before_any_pixel() -> None:
    """A PNG that says 16,000 x 3,200 and holds no pixel at all is refused for its size, not for its missing pixels."""
    assert issubclass(ImageTooLarge, ImageRejected)
    with pytest.raises(ImageTooLarge, match="16000 x 3200 pixels"):
        decode(without_pixels(16_000, 3_200), LIMITS)


@pytest.mark.parametrize("side", [10_000, 16_000, 60_000])
def test_bombs_of_any_size_are_refused(side: int) -> None:
    with pytest.raises(ImageTooLarge, match=rf"^{side} x {side}"):
        decode(without_pixels(side, side), LIMITS)


def test_a_limit_above_pillows_own_is_honoured() -> None:
    """By an image that Pillow by itself refuses to open: its pixels are missing, and that is what is wrong with it."""
    with pytest.raises(UndecodableImage):
        decode(without_pixels(14_000, 14_000), ImageLimits(max_pixels=14_000**2))
    with pytest.raises(ImageTooLarge, match="14000 x 14000 pixels; at most 195,999,999 are accepted"):
        decode(without_pixels(14_000, 14_000), ImageLimits(max_pixels=14_000**2 - 1))


@pytest.mark.parametrize("kind", ["lossy", "lossless", "extended"])
def test_a_webp_is_refused_before_its_decoder_takes_room_for_it(kind: str) -> None:
    """The header has nothing behind it: only its size can be what is wrong with it."""
    small = noise(30, 20) if kind != "extended" else noise(30, 20, "RGBA")
    data = encoded(small, "WEBP", lossless=kind == "lossless")
    assert decode(data, ImageLimits(max_pixels=600)).size == (30, 20)
    for limits, reason in (
        (ImageLimits(max_pixels=599), "30 x 20 pixels"),
        (ImageLimits(max_side=29), "30 x 20; no side"),
    ):
        with pytest.raises(ImageTooLarge, match=f"^{reason}"):
            decode(data[:30], limits)
    with pytest.raises(UndecodableImage, match="this WebP breaks off after 30 bytes; send the whole file"):
        decode(data[:30], LIMITS)


def without_pixels(width: int, height: int) -> bytes:
    return header(width, height) + chunk(b"IDAT", b"")


def test_resize_keeps_the_largest_centred_square() -> None:
    stripes = np.zeros((10, 30, 3), np.uint8)
    stripes[:, 10:20] = 255
    out = resize_and_crop(Image.fromarray(stripes), Preprocessing(size=10))
    assert (pixels(out) == 255).all()


@pytest.mark.parametrize("size", [(40, 40), (60, 40), (40, 100)])
def test_one_resampling_is_exactly_resize_then_crop(size: tuple[int, int]) -> None:
    image = noise(*size)
    out = resize_and_crop(image, Preprocessing(size=10, short_side=20))
    whole = image.resize((size[0] // 2, size[1] // 2), Image.Resampling.BILINEAR)
    left, top = (whole.width - 10) // 2, (whole.height - 10) // 2
    assert np.array_equal(pixels(out), pixels(whole.crop((left, top, left + 10, top + 10))))


def test_resize_is_antialiased() -> None:
    """A fine chequerboard becomes gray; without antialiasing it would stay black and white."""
    board = np.indices((64, 64)).sum(0) % 2 * 255
    out = pixels(resize_and_crop(Image.fromarray(board.astype(np.uint8)).convert("RGB"), Preprocessing(size=8)))
    assert np.abs(out.astype(int) - 127).max() < 20


def test_a_strip_one_pixel_wide_costs_no_more_than_its_square() -> None:
    out = preprocess(encoded(Image.new("RGB", (1, 16_000), "white")), Preprocessing(size=448))
    assert out.shape == (3, 448, 448)


def test_values_are_normalized_by_channel() -> None:
    spec = Preprocessing(size=1, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    out = to_array(Image.new("RGB", (1, 1), (255, 51, 0)), spec)
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    assert out[:, 0, 0] == pytest.approx([1.8, 0.0, -0.15], abs=1e-6)


def test_every_value_is_that_of_the_formula_to_the_last_bit() -> None:
    """Also in memory that is somebody else's."""
    spec = Preprocessing(size=448)
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    expected = (picture.astype(np.float32) / np.float32(255) - np.array(spec.mean, np.float32)) / np.array(
        spec.std, np.float32
    )
    slots = np.full((3, 3, 5, 7), np.nan, np.float32)
    out = to_array(Image.fromarray(picture), spec, out=slots[1])
    assert np.shares_memory(out, slots)
    assert np.isnan(slots[[0, 2]]).all()
    for found in (out, slots[1], to_array(Image.fromarray(picture), spec)):
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, expected.transpose(2, 0, 1))


def test_impossible_preprocessing_is_refused() -> None:
    with pytest.raises(ValueError, match="size .500. must be positive and at most short_side .448."):
        Preprocessing(size=500, short_side=448)
    with pytest.raises(ValueError, match="preprocessing version 99 is not version 1, 2, 3 or 4 of this rankone"):
        Preprocessing(version=99)
    with pytest.raises(ValueError, match="version 1 has no colour management: color must be 'ignored'"):
        Preprocessing(version=1)
