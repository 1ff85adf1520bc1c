from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

from rankone.model.preprocessing import ImageLimits, ImageTooLarge, Preprocessing, UndecodableImage, decode, to_input
from rankone.model.preprocessing.jpeg import least_reduction, walk
from tests.model.files import encoded, exif, noise, pixels, segment, with_segments

LIMITS, SPEC = ImageLimits(), Preprocessing()


def smooth(width: int, height: int, mode: str = "RGB") -> Image.Image:
    return noise(8, 6, mode).resize((width, height), Image.Resampling.BICUBIC)


PHOTO = encoded(smooth(64, 48), "JPEG", quality=90)
PROGRESSIVE = encoded(smooth(64, 48), "JPEG", quality=90, progressive=True)


def as_pillow(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return pixels(Image.open(io.BytesIO(data)).convert("RGB"))


def with_scans(data: bytes, count: int) -> bytes:
    """A progressive JPEG whose last scan comes `count` times."""
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * count + data[-2:]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}])
def test_the_walk_leaves_every_pixel(mode: str, options: dict[str, int]) -> None:
    data = encoded(smooth(64, 48, mode), "JPEG", **options)
    noisy = with_segments(
        data,
        segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * 100),
        segment(0xE2, b"MPF\0broken"),
        segment(0xFE, b"a comment"),
        segment(0xE1, b"Exif\0\0broken"),
        b"\xff\xe5\0\0",
        b"between \xff\0 segments",
    )
    for file in (data, noisy, noisy + b"what follows its end"):
        assert np.array_equal(pixels(decode(file, LIMITS)), as_pillow(data))


def test_what_the_decoder_must_know_stays() -> None:
    """By Adobe's segment alone is known that these samples are RGB, not YCbCr."""
    data = encoded(smooth(64, 48), "JPEG", keep_rgb=True, quality=100)
    assert np.abs(pixels(decode(data, LIMITS)).astype(int) - pixels(smooth(64, 48))).mean() < 3


def test_an_orientation_in_xmp_is_found() -> None:
    xmp = segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>')
    assert decode(with_segments(PHOTO, xmp), LIMITS).size == (48, 64)
    upright = segment(0xE1, b"Exif\0\0" + exif(1))
    assert decode(with_segments(PHOTO, xmp, upright), LIMITS).size == (64, 48)


def test_scans_times_pixels_have_a_budget() -> None:
    """40 times the pixel limit: counted, before anything is decoded."""
    width, height = 64, 48
    scans = len(re.findall(b"\xff\xda", PROGRESSIVE))
    limits = ImageLimits(max_pixels=width * height)
    decode(with_scans(PROGRESSIVE, 41 - scans), limits)
    for count in (42 - scans, 900):
        with pytest.raises(UndecodableImage, match="too many scans: more than 40 of 64 x 48 pixels; save it again"):
            decode(with_scans(PROGRESSIVE, count), limits)
    decode(with_scans(PROGRESSIVE, 900), LIMITS)  # which is no more work than one scan over a large image
    with pytest.raises(UndecodableImage, match="too many scans: more than 1000 of"):
        decode(with_scans(PROGRESSIVE, 1001), LIMITS)


def test_no_scan_hides_behind_a_marker_without_a_length() -> None:
    """In a file with restarts a decoder drops such a marker and goes on with what follows it."""
    end = PROGRESSIVE.rindex(b"\xff\xda")
    hidden = PROGRESSIVE[:end] + b"\xff\x02\xff\xff" + PROGRESSIVE[end:-2] * 1001 + b"\xff\xd9"
    with pytest.raises(UndecodableImage, match="too many scans"):
        decode(hidden, LIMITS)


def test_segments_are_counted_and_exif_in_pieces_is_joined() -> None:
    pieces = [segment(0xE1, b"Exif\0\0" + part) for part in (exif(6)[:12], exif(6)[12:])]
    turned = decode(with_segments(PHOTO, *pieces), LIMITS)
    assert turned.size == (48, 64)
    decode(with_segments(PHOTO, *pieces * 1000), LIMITS)
    with pytest.raises(UndecodableImage, match="more than 4,096 segments; save it again"):
        decode(with_segments(PHOTO, *pieces * 10_000), LIMITS)


def test_exif_whose_entries_share_their_data_takes_no_room() -> None:
    """Pillow copies the data of each: 5,000 times 60,000 bytes."""
    entry = b"\x0f\x01\x02\x00" + (60_000).to_bytes(4, "little") + b"\0\0\0\0"
    entries = b"".join(number.to_bytes(2, "little") + entry[2:] for number in range(1000, 6000))
    data = b"II*\0\x08\0\0\0" + (5000).to_bytes(2, "little") + entries
    assert (
        walk(with_segments(PHOTO, segment(0xE1, b"Exif\0\0" + data)), LIMITS, SPEC).data
        == walk(PHOTO, LIMITS, SPEC).data
    )
    decode(with_segments(PHOTO, segment(0xE1, b"Exif\0\0" + data)), LIMITS)


@pytest.mark.parametrize("kind", [PHOTO, PROGRESSIVE, encoded(smooth(64, 48, "L"), "JPEG", quality=50)])
@pytest.mark.parametrize("lost", [1, 2])
def test_a_whole_picture_without_its_last_bytes_is_read(kind: bytes, lost: int) -> None:
    assert np.array_equal(pixels(decode(kind[:-lost], LIMITS)), as_pillow(kind))


@pytest.mark.parametrize("kind", [PHOTO, PROGRESSIVE])
def test_a_picture_that_lacks_more_is_refused(kind: bytes) -> None:
    """At every byte of the pixels but the last three: of those, some are only filling."""
    for kept in range(kind.index(b"\xff\xda"), len(kind) - 5):
        with pytest.raises(UndecodableImage, match=f"this JPEG breaks off after {kept:,} bytes.*send the whole file"):
            decode(kind[:kept], LIMITS)


def changed(data: bytes, at: int, value: int) -> bytes:
    """One byte of the frame header changed, counted from its marker."""
    start = data.index(b"\xff\xc0") + at
    return data[:start] + bytes((value,)) + data[start + 1 :]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (changed(PHOTO, 4, 12), "12-bit samples; save it with 8 bits"),
        (changed(PHOTO, 1, 0xC5), "hierarchical"),
        (changed(PHOTO, 9, 2), "has 2 channels"),
        (changed(changed(PHOTO, 5, 0), 6, 0), "says 64 x 0 pixels"),
        (b"\xff\xd8\xff", "breaks off after 3 bytes"),
        (b"\xff\xd8\xff\xd9", "holds no picture"),
        (b"\xff\xd8" + segment(0xC0, b"\x08"), "frame header of this JPEG is too short"),
        (b"\xff\xd8" + segment(0xDA, b"\1\0\0\0\0\0"), "no complete header"),
        (PHOTO.replace(b"\xff\xdb", b"\xff\xfe"), "this JPEG is damaged; save it again"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, reason: str) -> None:
    with pytest.raises(UndecodableImage, match=f"^cannot be decoded: .*{reason}"):
        decode(data, LIMITS)


def test_a_jpeg_over_the_limits_is_decoded_at_a_reduced_scale() -> None:
    """To the mean of each block: of 2 x 2 pixels here, within a level or two."""
    image = smooth(200, 120)
    data = encoded(image, "JPEG", quality=100, subsampling=0)
    found = decode(data, ImageLimits(max_pixels=6000), Preprocessing(size=60))
    assert found.size == (100, 60)
    means = as_pillow(data).reshape(60, 2, 100, 2, 3).mean(axis=(1, 3))
    assert np.abs(pixels(found) - means).max() < 4
    exactly = decode(data, ImageLimits(max_pixels=24_000), Preprocessing(size=60))
    assert np.array_equal(pixels(exactly), as_pillow(data))


def test_reduced_or_not_the_network_sees_the_same() -> None:
    spec = Preprocessing(size=32)
    data = encoded(smooth(200, 120), "JPEG", quality=95)
    reduced, whole = (to_input(decode(data, ImageLimits(max_pixels=limit), spec), spec) for limit in (6000, 24_000))
    assert np.abs(reduced - whole).mean() < 0.02


@pytest.mark.parametrize(
    ("size", "short_side", "scale"),
    [
        ((8000, 6000), 448, 1),
        ((12_000, 9000), 448, 2),
        ((16_320, 12_240), 448, 2),
        ((40_000, 1900), 448, 4),
        ((9000, 12_000), 4500, 2),
        ((65_000, 3000), 375, 4),
    ],
)
def test_the_smallest_reduction_that_fits_is_taken(size: tuple[int, int], short_side: int, scale: int) -> None:
    assert least_reduction(size, LIMITS, short_side) == scale


@pytest.mark.parametrize(
    ("size", "short_side", "reason"),
    [
        ((9000, 12_000), 4501, "9000 x 12000 pixels; at most 50,000,000"),
        ((40_000, 1000), 448, "40000 x 1000; no side may be longer than 16,384"),
        ((20_000, 10_001), 448, "20000 x 10001; no side may be longer"),
        ((15_000, 15_000), 448, "15000 x 15000 pixels; at most 50,000,000"),
    ],
)
def test_what_is_too_large_even_so_is_refused(size: tuple[int, int], short_side: int, reason: str) -> None:
    with pytest.raises(ImageTooLarge, match=f"^{reason}"):
        least_reduction(size, LIMITS, short_side)


@pytest.mark.parametrize("data", [PHOTO, PROGRESSIVE])
def test_of_a_bomb_it_is_the_size_that_is_refused(data: bytes) -> None:
    start = re.search(b"\xff[\xc0\xc2]\0\x11\x08", data)
    assert start is not None
    huge = data[: start.end()] + (60_000).to_bytes(2) * 2 + data[start.end() + 4 :]
    with pytest.raises(ImageTooLarge, match="^60000 x 60000; no side"):
        decode(huge, LIMITS)


def test_a_progressive_one_may_be_less_large() -> None:
    """It needs the memory of all its pixels, also when it is reduced: 108 megapixels pass, 200 do not."""
    assert least_reduction((12_000, 9000), LIMITS, 448, in_scans=True) == 2
    with pytest.raises(ImageTooLarge, match="16320 x 12240 pixels; at most 50,000,000"):
        least_reduction((16_320, 12_240), LIMITS, 448, in_scans=True)
    progressive = encoded(smooth(200, 120), "JPEG", progressive=True)
    assert decode(progressive, ImageLimits(max_pixels=9600), Preprocessing(size=60)).size == (100, 60)
    with pytest.raises(ImageTooLarge):
        decode(progressive, ImageLimits(max_pixels=9599), Preprocessing(size=60))


def test_other_formats_are_not_reduced() -> None:
    for form in ("PNG", "WEBP", "GIF", "AVIF"):
        with pytest.raises(ImageTooLarge):
            decode(encoded(noise(200, 120), form), ImageLimits(max_pixels=6000))
