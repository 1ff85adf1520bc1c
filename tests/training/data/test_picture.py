"""Whatever is inside a file, it goes through the one decoder of the project."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from rankone.model.preprocessing import Limits, Preprocessing, UnsupportedImageType, decode
from rankone.training.data import DataError
from rankone.training.data.picture import picture, pixels


def colours(width: int = 9, height: int = 7) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def saved(path: Path, image: Image.Image, form: str, **options: Any) -> Path:
    image.save(path, form, **options)
    return path


def array(path: Path) -> npt.NDArray[np.uint8]:
    image = picture(path)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("form", ["BMP", "TIFF", "PPM", "PNG"])
def test_formats_without_loss_are_read_to_the_pixel(tmp_path: Path, form: str) -> None:
    path = saved(tmp_path / "odd.jpg", colours(), form)
    assert np.array_equal(array(path), np.asarray(colours()))
    spec = Preprocessing(size=5)
    assert np.array_equal(pixels(path, spec), pixels(saved(tmp_path / "even.png", colours(), "PNG"), spec))


@pytest.mark.parametrize("form", ["BMP", "TIFF", "PPM"])
def test_the_service_stays_strict(form: str) -> None:
    out = io.BytesIO()
    colours().save(out, form)
    with pytest.raises(UnsupportedImageType):
        decode(out.getvalue(), Limits())


def test_palettes_and_transparency_mean_what_they_mean_in_png(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    path = saved(tmp_path / "clear.gif", image, "GIF", transparency=1)
    assert array(path).tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "lime")]
    path = saved(tmp_path / "moving.jpg", frames[0], "GIF", save_all=True, append_images=frames[1:], duration=40)
    assert array(path)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_upright_as_a_jpeg_is(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = array(saved(tmp_path / "turned.png", colours(), "PNG", exif=exif))
    assert np.array_equal(array(saved(tmp_path / "turned.jpg", colours(), "TIFF", exif=exif)), expected)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "RGBA", "LA", "L", "1", "P"])
def test_every_mode_that_a_tiff_can_have_becomes_rgb(tmp_path: Path, mode: str) -> None:
    image = colours().convert("RGB").convert(mode) if mode != "LAB" else Image.new("LAB", (9, 7), (128, 140, 120))
    shown = image.convert("RGBA").convert("RGB") if mode in ("RGBA", "LA") else image.convert("RGB")
    assert np.array_equal(array(saved(tmp_path / "odd.tif", image, "TIFF")), np.asarray(shown))


def test_of_16_bits_the_high_byte_counts(tmp_path: Path) -> None:
    samples = np.array([[0, 255, 256, 65535]], dtype=np.uint16)
    path = saved(tmp_path / "deep.tif", Image.fromarray(samples), "TIFF")
    assert array(path)[0, :, 0].tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize("mode", ["F", "I"])
def test_samples_of_unknown_range_are_refused(tmp_path: Path, mode: str) -> None:
    path = saved(tmp_path / "height.tif", Image.new(mode, (4, 4)), "TIFF")
    with pytest.raises(DataError, match=f"height.tif: cannot be decoded: cannot write mode {mode} as PNG"):
        picture(path)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    with pytest.raises(
        DataError, match="page.jpg: no image that can be read; these can: JPEG, PNG, WebP, GIF, BMP, TIFF"
    ):
        picture(tmp_path / "page.jpg")
    with pytest.raises(DataError, match="nowhere.jpg: No such file or directory$"):
        picture(tmp_path / "nowhere.jpg")
    saved(tmp_path / "drawing.jpg", colours(), "EPS")
    with pytest.raises(DataError, match="drawing.jpg: no image that can be read"):
        picture(tmp_path / "drawing.jpg")


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "PPM"])
def test_other_formats_are_held_to_the_limits_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    path = saved(tmp_path / "large.jpg", colours(64, 64), form)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    monkeypatch.setattr("rankone.training.data.picture.OWN_IMAGES", Limits(max_pixels=4095))
    with pytest.raises(DataError, match="large.jpg: 64 x 64 pixels; at most 4,095 are accepted"):
        picture(path)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF"])
def test_what_breaks_off_is_named(tmp_path: Path, form: str) -> None:
    path = saved(tmp_path / "broken.jpg", colours(64, 64), form)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="broken.jpg: cannot be decoded"):
        picture(path)
    with pytest.raises(DataError, match="broken.jpg: cannot be decoded"):
        pixels(path, Preprocessing(size=16))
