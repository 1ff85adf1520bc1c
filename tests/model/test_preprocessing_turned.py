"""Images are resized as they are stored and turned upright afterwards: nearly the pixels of those that are turned first."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageOps

from rankone.model.preprocessing import (
    Color,
    ImageLimits,
    Preprocessing,
    decode,
    decode_as_stored,
    preprocess,
    resize_and_crop,
    upright,
)
from tests.model.files import encoded, exif, noise, pixels
from tests.model.profiles import rgb_profile

LIMITS = ImageLimits()
ORIENTATIONS = range(1, 9)


def file(orientation: int, form: str = "JPEG", mode: str = "RGB", size: tuple[int, int] = (301, 250)) -> bytes:
    """Not square, and without any symmetry; RGB with a profile."""
    profile = rgb_profile("prophoto", 1.8) if mode == "RGB" else None
    image = noise(size[0] // 6, size[1] // 6, mode).resize(size, Image.Resampling.BICUBIC)
    return encoded(image, form, quality=90, exif=b"Exif\0\0" + exif(orientation), icc_profile=profile)


def turned_first(data: bytes, spec: Preprocessing) -> Image.Image:
    return resize_and_crop(decode(data, LIMITS, spec), spec)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("short_side", [40, 55, 200])
def test_the_network_sees_what_it_sees_of_one_turned_first(orientation: int, mode: str, short_side: int) -> None:
    """But for the last bit, as rows and columns are rounded in another order; smaller, and larger, than the file."""
    spec = Preprocessing(size=40, short_side=short_side, jpeg="whole", color="ignored")
    data = file(orientation, mode=mode)
    exact, found = (pixels(image).astype(int) for image in (turned_first(data, spec), _resized(data, spec)))
    assert np.abs(found - exact).max() <= 1
    if orientation == 1:
        assert np.array_equal(found, exact)
    other = pixels(_resized(file(orientation % 8 + 1, mode=mode), spec)).astype(int)
    assert np.abs(other - exact).mean() > 10


def _resized(data: bytes, spec: Preprocessing) -> Image.Image:
    return resize_and_crop(decode_as_stored(data, LIMITS, spec), spec)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("color", ["managed", "ignored"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_input_is_that_of_the_image_as_stored(form: str, color: Color, orientation: int) -> None:
    spec = Preprocessing(size=40, mean=(0, 0, 0), std=(1 / 255,) * 3, color=color)
    data = file(orientation, form)
    resized = _resized(data, spec)
    assert np.abs(preprocess(data, spec).transpose(1, 2, 0) - pixels(resized)).max() < 1e-3
    assert resized.info == {}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_what_is_decoded_as_stored_can_be_turned(orientation: int) -> None:
    data = file(orientation)
    stored = decode_as_stored(data, LIMITS)
    assert stored.size == (301, 250)
    for image in (upright(stored), decode(data, LIMITS)):
        assert image.size == ((301, 250) if orientation < 5 else (250, 301))
        assert np.array_equal(pixels(image), pixels(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))
        assert list(image.info) == ["icc_profile"]
        assert upright(image) is image


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("orientation", [3, 6])
def test_earlier_versions_turn_first(version: int, orientation: int) -> None:
    """Their pixels are the same to the last bit, as older bundles need."""
    spec = Preprocessing(size=40, version=version, color="ignored", jpeg="whole")
    data = file(orientation)
    assert decode_as_stored(data, LIMITS, spec).size == decode(data, LIMITS, spec).size
    assert np.array_equal(pixels(_resized(data, spec)), pixels(turned_first(data, spec)))
    if orientation == 6:
        assert not np.array_equal(preprocess(data, spec), preprocess(data, replace(spec, version=4)))


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [(1, "10b511d2065adcb4"), (2, "92b91e50cab0fdb0"), (6, "d983f6b83bbee0e6"), (7, "d76a1fddc0245c6a")],
)
def test_the_pixels_of_version_4_are_these(orientation: int, expected: str) -> None:
    """If they must change, the version must."""
    values = preprocess(file(orientation, size=(1603, 1201)), Preprocessing(size=224, version=4))
    assert hashlib.sha256(values.tobytes()).hexdigest()[:16] == expected
