"""Whatever is inside a file, it goes through the one decoder of the project; its own tests are in tests/model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rankone.model.preprocessing import ImageLimits, Preprocessing, preprocess
from rankone.training.data import DataError, Split
from rankone.training.data.batches import augmentation, batches, for_crops
from rankone.training.data.picture import picture, pixels
from tests.model.files import encoded, exif, noise
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


@pytest.mark.parametrize("version", [3, 4])
def test_a_picture_on_its_side_is_what_the_service_sees(tmp_path: Path, version: int) -> None:
    """Its banner is at the bottom of the upright picture."""
    spec = Preprocessing(size=6, version=version)
    on_its_side = b"Exif\0\0" + exif(6)
    (tmp_path / "tall.jpg").write_bytes(encoded(noise(50, 40), "JPEG", exif=on_its_side))
    data = (tmp_path / "tall.jpg").read_bytes()
    assert np.array_equal(pixels(tmp_path / "tall.jpg", spec), preprocess(data, spec))
    assert picture(tmp_path / "tall.jpg").size == (40, 50)
    above = picture(tmp_path / "tall.jpg").crop((0, 0, 40, 44))
    assert np.array_equal(pixels(tmp_path / "tall.jpg", spec, 6), preprocess(encoded(above), spec))


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
    monkeypatch.setattr("rankone.training.data.picture.OWN_IMAGES", ImageLimits(max_pixels=4095))
    with pytest.raises(DataError, match="large.jpg: 64 x 64 pixels; at most 4,095 are accepted"):
        picture(tmp_path / "large.jpg")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF"])
def test_what_breaks_off_is_named(tmp_path: Path, form: str) -> None:
    data = encoded(noise(64, 64), form)
    (tmp_path / "broken.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="broken.jpg: cannot be decoded"):
        pixels(tmp_path / "broken.jpg", Preprocessing(size=16))


LARGE = Preprocessing(size=100)


def large(path: Path, width: int = 1200, height: int = 900) -> Path:
    path.write_bytes(encoded(noise(16, 12).resize((width, height), Image.Resampling.BICUBIC), "JPEG", quality=90))
    return path


def test_training_reduces_large_jpegs_as_the_service_does(tmp_path: Path) -> None:
    """By the recipe: the pixels are those of `preprocess`, which the service's decoders are tested against."""
    path = large(tmp_path / "large.jpg")
    split = Split((path,), (0,))
    seen = []
    for spec, size in ((LARGE, (600, 450)), (replace(LARGE, jpeg="whole"), (1200, 900))):
        assert picture(path, spec=spec).size == size
        expected = preprocess(path.read_bytes(), spec)
        assert np.array_equal(pixels(path, spec), expected)
        assert np.array_equal(next(batches(split, spec, [[0]])).numpy()[0], expected)
        seen.append(expected)
    assert not np.array_equal(seen[0], seen[1])


def test_a_banner_is_cut_off_the_whole_picture(tmp_path: Path) -> None:
    path = large(tmp_path / "large.jpg", height=920)
    assert picture(path, 20, LARGE).size == (1200, 900)
    assert np.array_equal(pixels(path, LARGE, 20), pixels(path, replace(LARGE, jpeg="whole"), 20))


@pytest.mark.parametrize("size", [100, 64])
def test_the_smallest_crop_of_a_reduced_picture_has_enough_pixels(tmp_path: Path, size: int) -> None:
    """Twice those it is resized to, by the bounds of RandomResizedCrop: a quarter of the area, sides of 3 to 4."""
    spec = Preprocessing(size=size)
    for width, height in ((2200, 2200), (2100, 1000), (1000, 1800)):
        found = picture(large(tmp_path / f"{width}.jpg", width, height), spec=for_crops(spec))
        assert found.width <= width / 2
        least = (found.width * found.height / 4 * 3 / 4) ** 0.5
        assert least >= 2 * size


def test_crops_are_cut_from_a_picture_with_pixels_to_spare(tmp_path: Path) -> None:
    path = large(tmp_path / "large.jpg")
    sizes = []
    augment = augmentation("strong", seed=0, epoch=0)
    assert augment is not None

    def noting(image: Image.Image, place: int, spec: Preprocessing) -> Image.Image:
        sizes.append(image.size)
        assert spec == LARGE
        return augment(image, place, spec)

    (found,) = batches(Split((path,), (0,)), LARGE, [[0]], augment=noting)
    assert found.shape == (1, 3, 100, 100)
    assert sizes == [(1200, 900)]
    assert picture(path, spec=LARGE).size == (600, 450)
