"""Whatever is inside a file, it goes through the one decoder of the project; its own tests are in tests/model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rankone.model.preprocessing import Limits, Preprocessing, preprocess
from rankone.training.data import DataError
from rankone.training.data.picture import picture, pixels
from tests.model.files import encoded, noise
from tests.model.profiles import rgb_profile

OTHERS = ["GIF", "BMP", "TIFF", "PPM"]


@pytest.mark.parametrize("form", OTHERS)
def test_other_kinds_are_read_under_any_name(tmp_path: Path, form: str) -> None:
    image = noise(9, 7).quantize(16) if form == "GIF" else noise(9, 7)
    (tmp_path / "odd.jpg").write_bytes(encoded(image, form))
    (tmp_path / "even.png").write_bytes(encoded(image))
    odd, even = (np.asarray(picture(tmp_path / name)) for name in ("odd.jpg", "even.png"))
    assert np.array_equal(odd, even)


@pytest.mark.parametrize("color", ["managed", "ignored"])
@pytest.mark.parametrize("banner", [0, 3])
def test_colours_are_those_of_the_recipe_with_and_without_a_banner(tmp_path: Path, color: str, banner: int) -> None:
    spec = Preprocessing(size=6, color="managed" if color == "managed" else "ignored")
    icc = rgb_profile("prophoto", 1.8)
    (tmp_path / "wide.png").write_bytes(encoded(noise(6, 6 + banner), icc_profile=icc))
    cropped = noise(6, 6 + banner).crop((0, 0, 6, 6))
    expected = preprocess(encoded(cropped, icc_profile=icc), spec)
    assert np.array_equal(pixels(tmp_path / "wide.png", spec, banner), expected)
    plain = preprocess(encoded(cropped), spec)
    assert np.array_equal(expected, plain) == (color == "ignored")


def test_an_image_no_higher_than_its_banner_is_named(tmp_path: Path) -> None:
    (tmp_path / "low.png").write_bytes(encoded(noise(9, 7)))
    with pytest.raises(DataError, match="low.png: 7 rows of pixels, of which 7 are to be cut off as its banner"):
        picture(tmp_path / "low.png", 7)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    with pytest.raises(DataError, match="page.jpg: not an image: this is an HTML page: .*; JPEG, PNG, .* are accepted"):
        picture(tmp_path / "page.jpg")
    with pytest.raises(DataError, match="nowhere.jpg: No such file or directory$"):
        picture(tmp_path / "nowhere.jpg")
    (tmp_path / "drawing.jpg").write_bytes(encoded(noise(9, 7), "EPS"))
    with pytest.raises(DataError, match="drawing.jpg: this is PostScript: convert it to JPEG or PNG"):
        picture(tmp_path / "drawing.jpg")
    (tmp_path / "height.tif").write_bytes(encoded(Image.new("F", (4, 4)), "TIFF"))
    with pytest.raises(DataError, match="height.tif: cannot be decoded: its samples have 32 bits and no known range"):
        picture(tmp_path / "height.tif")


@pytest.mark.parametrize("form", OTHERS)
def test_other_kinds_are_held_to_the_limits_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    data = encoded(noise(64, 64), form)
    (tmp_path / "large.jpg").write_bytes(data[: len(data) // 2])
    monkeypatch.setattr("rankone.training.data.picture.OWN_IMAGES", Limits(max_pixels=4095))
    with pytest.raises(DataError, match="large.jpg: 64 x 64 pixels; at most 4,095 are accepted"):
        picture(tmp_path / "large.jpg")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF"])
def test_what_breaks_off_is_named(tmp_path: Path, form: str) -> None:
    data = encoded(noise(64, 64), form)
    (tmp_path / "broken.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="broken.jpg: cannot be decoded"):
        pixels(tmp_path / "broken.jpg", Preprocessing(size=16))
