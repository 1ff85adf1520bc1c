"""JPEG decoded at a reduced scale: which scale, its pixels, and that nothing is refused or accepted that was not before."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from importlib import resources
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from rankone.model.preprocessing import (
    ImageLimits,
    ImageRejected,
    ImageTooLarge,
    Jpeg,
    Preprocessing,
    UndecodableImage,
    decode,
    preprocess,
)
from rankone.model.preprocessing.jpeg import reduction
from tests.model.files import encoded, exif, noise, pixels, segment, with_segments
from tests.model.profiles import gray_profile

LIMITS = ImageLimits()
KINDS: dict[str, dict[str, Any]] = {
    "4:2:0": {},
    "4:4:4": {"subsampling": 0},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
}


def whole(size: int, short_side: int | None = None) -> Preprocessing:
    return Preprocessing(size=size, short_side=short_side, jpeg="whole")


def smooth(width: int, height: int, mode: str = "RGB") -> Image.Image:
    return noise(16, 12, mode).resize((width, height), Image.Resampling.BICUBIC)


def by_hand(data: bytes, scale: int) -> Image.Image:
    """What Pillow itself decodes at a scale, upright."""
    image = Image.open(io.BytesIO(data))
    image.draft(None, (image.width // scale, image.height // scale))
    return ImageOps.exif_transpose(image).convert("RGB")


def outcome(data: bytes, spec: Preprocessing, limits: ImageLimits = LIMITS) -> str:
    """Why an image is refused, or nothing."""
    try:
        decode(data, limits, spec)
    except ImageRejected as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize(
    ("size", "spec", "scale"),
    [
        ((4000, 3000), Preprocessing(size=448), 2),
        ((3000, 4000), Preprocessing(size=448), 2),
        ((4000, 3000), Preprocessing(size=224), 4),
        ((4000, 3000), Preprocessing(size=448, short_side=800), 1),
        ((4000, 3000), whole(448), 1),
        ((1792, 9000), Preprocessing(size=448), 2),
        ((1791, 9000), Preprocessing(size=448), 1),
        ((9000, 3584), Preprocessing(size=448), 4),
        ((9000, 3583), Preprocessing(size=448), 2),
        ((7168, 7168), Preprocessing(size=448), 8),
        ((7167, 7167), Preprocessing(size=448), 4),
        ((60_000, 60_000), Preprocessing(size=448), 8),
        ((512, 512), Preprocessing(size=16), 2),
        ((511, 9000), Preprocessing(size=16), 1),
        ((2048, 2048), Preprocessing(size=128), 8),
        ((2048, 2048), Preprocessing(size=129), 4),
    ],
)
def test_the_short_side_keeps_twice_what_is_needed_and_256_pixels(
    size: tuple[int, int], spec: Preprocessing, scale: int
) -> None:
    assert reduction(size, spec) == scale


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_pixels_are_those_of_pillow_at_that_scale(mode: str, kind: str) -> None:
    """Sizes that the scale does not divide are rounded up."""
    data = encoded(smooth(1203, 1603, mode), "JPEG", quality=90, **KINDS[kind])
    for size, scale in ((300, 2), (150, 4), (100, 4)):
        found = decode(data, LIMITS, Preprocessing(size=size))
        assert found.size == (-(-1203 // scale), -(-1603 // scale))
        assert np.array_equal(pixels(found), pixels(by_hand(data, scale)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_reduced_images_are_upright(orientation: int) -> None:
    data = with_segments(encoded(smooth(800, 600), "JPEG"), segment(0xE1, b"Exif\0\0" + exif(orientation)))
    found = decode(data, LIMITS, Preprocessing(size=150))
    assert found.size == ((400, 300) if orientation < 5 else (300, 400))
    assert np.array_equal(pixels(found), pixels(by_hand(data, 2)))


@pytest.mark.parametrize(("size", "scale"), [(500, 2), (250, 4), (85, 8)])
@pytest.mark.parametrize("kind", ["4:4:4", "progressive"])
def test_a_pixel_is_the_mean_of_those_it_stands_for(kind: str, size: int, scale: int) -> None:
    """As libjpeg's reduced transforms (jidctred.c) are derived: averages of the outputs of the whole one, rounded.

    Of colour, the rounding of three channels adds up; and at half the resolution (4:2:0) the whole picture interpolates it.
    """
    gray = kind == "progressive"
    data = encoded(smooth(2080, 2048, "L" if gray else "RGB"), "JPEG", quality=95, **KINDS[kind])
    spec = Preprocessing(size=size)
    found = decode(data, LIMITS, spec)
    assert found.size == (2080 // scale, 2048 // scale)
    exact = pixels(decode(data, LIMITS, whole(size))).astype(np.float64)
    means = exact.reshape(2048 // scale, scale, 2080 // scale, scale, 3).mean(axis=(1, 3))
    off = np.abs(pixels(found) - means)
    assert off.max() <= (1 if gray else 2.5)
    assert off.mean() < (0.4 if gray else 0.55)


def photograph(name: str) -> bytes:
    with resources.as_file(resources.files("skimage.data").joinpath(name)) as path:
        return encoded(Image.open(path).convert("RGB"), "JPEG", quality=90)


@pytest.mark.parametrize(
    ("name", "size"), [("retina.jpg", 170), ("hubble_deep_field.jpg", 200), ("astronaut.png", 128)]
)
def test_the_network_sees_nearly_the_same_of_a_photograph(name: str, size: int) -> None:
    """In levels of 255, on average; another kernel for the resize changes more."""
    data = photograph(name)
    spec = Preprocessing(size=size, mean=(0, 0, 0), std=(1 / 255,) * 3)
    reduced, exact = preprocess(data, spec), preprocess(data, replace(spec, jpeg="whole"))
    found = np.abs(reduced - exact).mean()
    image = Image.open(io.BytesIO(data))
    left, top = ((side - min(image.size)) / 2 for side in image.size)
    box = (left, top, left + min(image.size), top + min(image.size))
    sharp = image.resize((size, size), Image.Resampling.LANCZOS, box=box)
    other = np.abs(exact - np.asarray(sharp).transpose(2, 0, 1)).mean()
    assert 0 < found < 0.7 * other


SPEC, WHOLE = Preprocessing(size=64), whole(64)
"""Of which the first halves a picture of 512 x 512."""
SMALL = {name: encoded(smooth(520, 512), "JPEG", quality=50, **options) for name, options in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_what_breaks_off_is_refused_whole_or_reduced(kind: str) -> None:
    """With the same words: cut anywhere, and at every byte near the end, where a whole picture is forgiven its last two."""
    data = SMALL[kind]
    assert reduction((520, 512), SPEC) == 2
    for kept in [*range(2, len(data) - 24, 997), *range(len(data) - 24, len(data) + 1)]:
        assert outcome(data[:kept], SPEC) == outcome(data[:kept], WHOLE), kept
    assert outcome(data[:-2], SPEC) == ""
    assert "breaks off" in outcome(data[:-40], SPEC)


def test_a_detail_that_is_missing_counts_though_the_reduced_picture_has_none() -> None:
    """At an eighth, only the mean of the last block is shown, and its other coefficients come last in the file."""
    image = Image.new("L", (2048, 2048), 128)
    image.paste(noise(8, 8, "L"), (2040, 2040))
    data = encoded(image, "JPEG", quality=95)
    spec = Preprocessing(size=64)
    cut = data[:-20]
    assert np.array_equal(pixels(by_hand(cut + b"\xff\xd9", 8)), pixels(by_hand(data, 8)))
    assert decode(data, LIMITS, spec).size == (256, 256)
    for one in (spec, replace(spec, jpeg="whole")):
        with pytest.raises(UndecodableImage, match="breaks off"):
            decode(cut, LIMITS, one)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_refused_or_not_whole_or_reduced(kind: str) -> None:
    """A byte changed anywhere, more often among the headers."""
    rng, refused = np.random.default_rng(0), 0
    for number in range(60):
        data = bytearray(SMALL[kind])
        data[rng.integers(2, len(data) if number % 2 else 640)] = rng.integers(0, 256)
        limits = ImageLimits(max_pixels=1_000_000, max_side=4000)
        reduced, exact = (outcome(bytes(data), spec, limits) for spec in (SPEC, WHOLE))
        assert reduced == exact
        refused += bool(exact)
    assert refused


@pytest.mark.parametrize("kind", ["4:2:0", "progressive"])
def test_limits_are_those_of_the_whole_image(kind: str) -> None:
    """Of which an eighth would be well within them: nothing is accepted or refused that was not before."""
    data = encoded(smooth(1300, 1280), "JPEG", **KINDS[kind])
    spec = Preprocessing(size=160)
    for max_pixels in (1300 * 1280, 1300 * 1280 - 1, 1300 * 1280 * 10 // 25, 1300 * 1280 // 4, 300_000):
        limits = ImageLimits(max_pixels=max_pixels)
        assert outcome(data, spec, limits) == outcome(data, replace(spec, jpeg="whole"), limits)
    for limits in (ImageLimits(max_side=1299), ImageLimits(max_pixels=700_000)):
        assert decode(data, limits, replace(spec, jpeg="whole")).size == (650, 640)
        assert decode(data, limits, spec).size == (325, 320)
    with pytest.raises(ImageTooLarge, match="^1300 x 1280 pixels; at most 300,000 are accepted"):
        decode(data, ImageLimits(max_pixels=300_000), spec)


def test_a_second_frame_hides_no_pixels() -> None:
    """The decoder goes by the first frame header, and the walk by the last, which says less."""
    data = encoded(smooth(1024, 1024), "JPEG")
    frame = data.index(b"\xff\xc0")
    second = data[frame : frame + 5] + (600).to_bytes(2) * 2 + data[frame + 9 : frame + 19]
    hiding = data[:-2] + second + data[-2:]
    for spec in (SPEC, WHOLE):
        with pytest.raises(ImageTooLarge, match="^1024 x 1024 pixels; at most 500,000"):
            decode(hiding, ImageLimits(max_pixels=500_000), spec)


@pytest.mark.parametrize("size", [16, 64, 150, 448])
def test_enough_is_left_for_a_thumbnail(size: int) -> None:
    data = encoded(smooth(2200, 600), "JPEG")
    found = decode(data, LIMITS, Preprocessing(size=size))
    assert max(found.size) >= 2200 // 2
    tall = decode(encoded(smooth(300, 2200), "JPEG"), LIMITS, Preprocessing(size=size))
    assert tall.size == (300, 2200)


def test_only_jpegs_are_reduced_and_only_if_the_spec_says_so() -> None:
    image = smooth(1200, 900)
    for form in ("PNG", "WEBP"):
        assert decode(encoded(image, form), LIMITS, SPEC).size == (1200, 900)
    data = encoded(image, "JPEG")
    assert decode(data, LIMITS).size == decode(data, LIMITS, WHOLE).size == (1200, 900)
    assert decode(data, LIMITS, SPEC).size == (600, 450)


def test_a_reduced_image_keeps_its_profile() -> None:
    icc = gray_profile(1.0)
    data = encoded(smooth(520, 512, "L"), "JPEG", icc_profile=icc)
    assert decode(data, LIMITS, SPEC).info == {"icc_profile": icc}
    plain = encoded(smooth(520, 512, "L"), "JPEG")
    assert not np.array_equal(preprocess(data, SPEC), preprocess(plain, SPEC))


@pytest.mark.parametrize("version", [1, 2])
def test_older_versions_reduce_nothing(version: int) -> None:
    with pytest.raises(ValueError, match=f"version {version} reduces no JPEG: jpeg must be 'whole'"):
        Preprocessing(version=version, color="ignored")


MADE: dict[str, dict[str, Any]] = {
    "RGB": {},
    "RGB, 4:4:4": {"subsampling": 0},
    "L": {},
    "CMYK": {},
}


def digest(name: str, version: int, jpeg: Jpeg) -> str:
    image = smooth(1601, 1203, name.partition(",")[0])
    data = encoded(image, "JPEG", quality=90, exif=b"Exif\0\0" + exif(6), **MADE[name])
    values = preprocess(data, Preprocessing(size=224, version=version, jpeg=jpeg))
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("RGB", "05cc91ac483dea66"),
        ("RGB, 4:4:4", "ab182c79c5db59ef"),
        ("L", "b5385a375f60b7a8"),
        ("CMYK", "92eb7595a86f7f15"),
    ],
)
def test_whole_jpegs_have_the_pixels_of_version_2(name: str, expected: str) -> None:
    """To the last bit, as they were before anything was reduced: bundles of that time keep their embeddings."""
    assert digest(name, 2, "whole") == digest(name, 3, "whole") == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("RGB", "6136a285772b4913"),
        ("RGB, 4:4:4", "20c01677ea198577"),
        ("L", "b568228632691b78"),
        ("CMYK", "adabfa8e710a5b31"),
    ],
)
def test_the_pixels_of_version_3_are_these(name: str, expected: str) -> None:
    """If they must change, the version must."""
    assert digest(name, 3, "reduced") == expected
