from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from rankone.model.preprocessing import ImageLimits, Preprocessing, decode, preprocess, resize_and_crop, to_srgb
from rankone.model.preprocessing import color as module
from tests.model.files import encoded, noise, pixels, png
from tests.model.profiles import (
    D50,
    cmyk_profile,
    gray_profile,
    profile,
    rgb_profile,
    srgb_of_gray,
    srgb_of_lab,
    srgb_of_rgb,
)

LIMITS = ImageLimits()
GAMMA = 563 / 256  # AdobeRGB's, as a profile stores it
ADOBE = rgb_profile("adobe_rgb", GAMMA)
CORNERS = np.random.default_rng(0).uniform([20, -30, -30], [90, 30, 30], (2, 2, 2, 2, 3))
CORNERS[0, 0, 0, 0], CORNERS[1, 1, 1, 1] = (100, 0, 0), (0, 0, 0)
PRESS = cmyk_profile(CORNERS)
TOLERANCE = 1.1
"""Of 255: LittleCMS calculates with 8 and 14 bits."""


def carrying(image: Image.Image, icc: bytes) -> Image.Image:
    image.info["icc_profile"] = icc
    return image


def tagged(image: Image.Image, icc: bytes, form: str = "PNG", **options: Any) -> Image.Image:
    return decode(encoded(image, form, icc_profile=icc, **options), LIMITS, Preprocessing())


@pytest.mark.parametrize(
    ("name", "gamma"),
    [("display_p3", GAMMA), ("adobe_rgb", GAMMA), ("prophoto", 1.8008), ("srgb", 1.8008), ("srgb", 1.0)],
)
def test_rgb_is_converted_as_the_formulas_have_it(name: str, gamma: float) -> None:
    gamma = round(gamma * 256) / 256
    image = noise(64, 64)
    found = to_srgb(tagged(image, rgb_profile(name, gamma)))
    assert np.abs(pixels(found) - srgb_of_rgb(pixels(image), name, gamma)).max() < TOLERANCE
    assert "icc_profile" not in found.info


def test_known_colours() -> None:
    """Green of AdobeRGB lies outside of sRGB; white and black stay, and gray is gray; sRGB's red is less than full in P3."""
    colours = Image.fromarray(np.array([[[0, 255, 0], [255, 255, 255], [0, 0, 0], [128, 128, 128]]], np.uint8))
    found = pixels(to_srgb(tagged(colours, ADOBE)))[0].tolist()
    assert found[:3] == [[0, 255, 0], [255, 255, 255], [0, 0, 0]]
    assert np.ptp(found[3]) == 0
    p3 = Image.new("RGB", (1, 1), (234, 51, 35))  # sRGB's red in Display P3
    icc = rgb_profile("display_p3", 2.2)
    red, green, blue = pixels(to_srgb(tagged(p3, icc)))[0, 0].tolist()
    assert red >= 254
    assert max(green, blue) < 12


def test_white_stays_white_whatever_the_screen_calls_white() -> None:
    d50, d65 = (struct.pack(">3i", *(round(x * 65536) for x in white)) for white in (D50, (0.9505, 1.0, 1.089)))
    bluish = ADOBE.replace(b"XYZ \0\0\0\0" + d50, b"XYZ \0\0\0\0" + d65)
    assert bluish != ADOBE
    assert pixels(to_srgb(tagged(Image.new("RGB", (1, 1), "white"), bluish))).tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_gray_is_converted_by_a_gray_profile(mode: str) -> None:
    gray = np.arange(256, dtype=np.uint8)[None]
    image = Image.fromarray(gray.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(gray).convert(mode)
    found = to_srgb(tagged(image, gray_profile(1.0)))
    assert np.abs(pixels(found) - srgb_of_gray(gray, 1.0)).max() < TOLERANCE


def test_gray_with_a_profile_of_rgb_is_converted_as_rgb() -> None:
    gray = np.arange(256, dtype=np.uint8)[None]
    rgb = np.repeat(gray[..., None], 3, axis=2)
    found = to_srgb(tagged(Image.fromarray(gray), rgb_profile("srgb", 1.0)))
    assert np.abs(pixels(found) - srgb_of_rgb(rgb, "srgb", 1.0)).max() < TOLERANCE


def test_cmyk_is_converted_by_the_inks_of_its_press() -> None:
    """Exactly where the profile has its nodes: all overprints of solid inks."""
    inks = np.stack(np.meshgrid(*[[0, 255]] * 4, indexing="ij"), axis=-1).astype(np.uint8).reshape(4, 4, 4)
    image = Image.fromarray(inks, "CMYK")
    found = to_srgb(carrying(image, PRESS))
    assert np.abs(pixels(found).reshape(2, 2, 2, 2, 3) - srgb_of_lab(CORNERS)).max() < 2


def test_a_cmyk_jpeg_is_resized_as_cmyk_and_then_converted() -> None:
    data = encoded(Image.new("CMYK", (64, 48), (255, 0, 0, 0)), "JPEG", quality=100, icc_profile=PRESS)
    spec = Preprocessing(size=16)
    kept = decode(data, LIMITS, spec)
    assert (kept.mode, kept.info["icc_profile"]) == ("CMYK", PRESS)
    found = resize_and_crop(kept, spec)
    assert (found.mode, found.size) == ("RGB", (16, 16))
    assert np.abs(pixels(found)[0, 0] - srgb_of_lab(CORNERS[1, 0, 0, 0])).max() < 3


def test_without_a_spec_and_when_ignored_an_image_is_rgb_as_ever() -> None:
    image = Image.new("CMYK", (8, 8), (200, 50, 20, 10))
    data, plain = (encoded(image, "JPEG", **options) for options in ({"icc_profile": PRESS}, {}))
    ignored = Preprocessing(size=4, color="ignored")
    for found in (decode(data, LIMITS), decode(data, LIMITS, ignored)):
        assert (found.mode, found.info) == ("RGB", {})
        assert np.array_equal(pixels(found), pixels(decode(plain, LIMITS)))
    colours = encoded(noise(8, 8), icc_profile=ADOBE)
    assert np.array_equal(preprocess(colours, ignored), preprocess(encoded(noise(8, 8)), ignored))
    assert np.array_equal(pixels(decode(colours, LIMITS)), pixels(noise(8, 8)))
    kept = decode(data, LIMITS, Preprocessing(size=4))
    assert resize_and_crop(kept, ignored).mode == "RGB"


def test_converting_after_the_resize_is_near_converting_before() -> None:
    image = noise(8, 8).resize((640, 512), Image.Resampling.BICUBIC)
    spec = Preprocessing(size=128)
    after = pixels(resize_and_crop(tagged(image, ADOBE), spec))
    before = pixels(resize_and_crop(to_srgb(tagged(image, ADOBE)), spec))
    assert np.abs(after.astype(int) - before).mean() < 0.6


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF"])
def test_every_format_brings_its_profile(form: str) -> None:
    data = encoded(noise(16, 16), form, icc_profile=ADOBE)
    assert decode(data, LIMITS, accepted=(form,)).info == {"icc_profile": ADOBE}


def test_a_profile_in_pieces_is_joined() -> None:
    long = profile(b"mntr", b"RGB ", b"XYZ ", {b"desc": bytes(200_000)})
    assert tagged(noise(8, 8), long, "JPEG").info == {"icc_profile": long}
    data = encoded(noise(8, 8), "JPEG", icc_profile=long)
    lost = data[: data.rindex(b"ICC_PROFILE")] + b"?" + data[data.rindex(b"ICC_PROFILE") + 1 :]
    assert decode(lost, LIMITS).info == {}


def test_turned_and_cut_the_image_keeps_its_profile() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert tagged(noise(8, 6), ADOBE, exif=exif).info == {"icc_profile": ADOBE}
    assert tagged(noise(8, 6), ADOBE).crop((0, 0, 4, 4)).info == {"icc_profile": ADOBE}
    assert tagged(noise(8, 6, "RGBA"), ADOBE).info == {"icc_profile": ADOBE}


BUILT_IN = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("icc", [BUILT_IN, BUILT_IN.replace(b"RGB ", b"RGB ", 1) + bytes(4)])
def test_srgb_under_any_name_changes_nothing_and_costs_nothing(icc: bytes) -> None:
    image = tagged(noise(64, 64), icc)
    assert to_srgb(image) is image
    assert module._transform(icc, "RGB") is None


BROKEN = {
    "no profile": b"?" * 500,
    "empty": b"",
    "cut": ADOBE[:200],
    "of another space": ADOBE.replace(b"RGB ", b"CMYK", 1),
    "of gray": gray_profile(1.0),
    "of another device": ADOBE.replace(b"mntr", b"link", 1),
    "without its curves": ADOBE.replace(b"TRC", b"???"),
    "with a program": ADOBE.replace(b"wtpt", b"D2B3", 1),
    "too long": ADOBE + bytes(4 << 20),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_profile_leaves_the_pixels(name: str) -> None:
    image = tagged(noise(16, 16), BROKEN[name], "WEBP", lossless=True)
    assert np.array_equal(pixels(to_srgb(image)), pixels(noise(16, 16)))
    inks = encoded(Image.new("CMYK", (8, 8), (9, 99, 199, 0)), "JPEG", icc_profile=BROKEN[name] or b"?")
    spec = Preprocessing(size=8)
    found = resize_and_crop(decode(inks, LIMITS, spec), spec)
    assert np.array_equal(pixels(found), pixels(decode(inks, LIMITS)))


def test_a_transform_is_built_once_and_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[bytes] = []
    real = module._built

    def counted(icc: bytes, mode: str) -> module._Transform:
        built.append(icc)
        return real(icc, mode)

    monkeypatch.setattr(module, "_built", counted)
    monkeypatch.setattr(module, "_transforms", {})
    for _ in range(3):
        to_srgb(tagged(noise(8, 8), ADOBE))
    assert len(built) == 1
    for number in range(40):
        to_srgb(tagged(noise(8, 8), rgb_profile("srgb", 1 + number / 256)))
    assert len(module._transforms) <= 16


def test_mutated_profiles_never_raise() -> None:
    rng = np.random.default_rng(0)
    for icc, mode in ((ADOBE, "RGB"), (gray_profile(1.8), "L"), (PRESS, "CMYK")):
        for _ in range(60):
            data = bytearray(icc)
            for _ in range(rng.integers(1, 6)):
                data[rng.integers(0, len(data))] = rng.integers(0, 256)
            to_srgb(carrying(noise(4, 4, mode).convert(mode if mode == "CMYK" else "RGB"), bytes(data)))


def test_16_bit_rgb_too() -> None:
    icc = io.BytesIO()
    Image.new("RGB", (1, 1)).save(icc, "PNG", icc_profile=ADOBE)
    chunk = icc.getvalue()[33 : icc.getvalue().index(b"IDAT") - 4]
    samples = pixels(noise(8, 8)).astype(np.uint16) * 257
    found = to_srgb(decode(png(samples, 16, chunk), LIMITS))
    assert np.abs(pixels(found) - srgb_of_rgb(pixels(noise(8, 8)), "adobe_rgb", GAMMA)).max() < TOLERANCE
