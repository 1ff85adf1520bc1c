from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rankone.model.preprocessing import Preprocessing
from rankone.training.data import DataError, load
from rankone.training.data.benchmarks import read_mit67
from rankone.training.data.picture import pixels
from tests.training.data.trees import SCENES, mit67

LAYOUTS = {
    "all at the top": ("", "Images"),
    "lists above the folder of the archive": ("", "indoorCVPR_09/Images"),
    "lists in the folder of the archive": ("indoorCVPR_09", "indoorCVPR_09/Images"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_layout_is_read(tmp_path: Path, layout: str, end: str) -> None:
    lists, images = LAYOUTS[layout]
    mit67(tmp_path / lists, tmp_path / images, end)
    data = read_mit67(tmp_path)
    assert data == load(str(tmp_path))
    assert (data.classes, data.validation) == (SCENES, None)
    assert data.train.paths[0] == tmp_path / images / "mall" / "shopping mall.jpg"
    assert data.train.labels == (1, 2, 2, 1, 1, 0, 0)
    assert data.test.labels == (0, 1, 2)
    assert all(path.is_file() for split in data.splits.values() for path in split.paths)


def test_whatever_is_inside_a_jpg_is_trained_on(tmp_path: Path) -> None:
    """GIF, BMP, PNG, gray and CMYK, all called .jpg, are what a viewer shows of them."""
    data = read_mit67(mit67(tmp_path, tmp_path / "Images"))
    spec = Preprocessing(size=8)
    seen = set()
    for path in (*data.train.paths, *data.test.paths):
        with Image.open(path) as image:
            seen.add((image.format, image.mode))
            shown = image.convert("RGB")
        shown.save(tmp_path / "shown.png")
        assert np.array_equal(pixels(path, spec), pixels(tmp_path / "shown.png", spec)), path
    assert {name for name, _ in seen} == {"GIF", "BMP", "PNG", "JPEG"}
    assert {mode for name, mode in seen if name == "JPEG"} == {"RGB", "L", "CMYK"}


@pytest.mark.parametrize("name", ["TrainImages.txt", "TestImages.txt"])
def test_a_list_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    (mit67(tmp_path, tmp_path / "Images") / name).unlink()
    with pytest.raises(DataError, match=name):
        read_mit67(tmp_path)


def test_images_that_are_missing_are_named(tmp_path: Path) -> None:
    mit67(tmp_path, tmp_path / "images")
    with pytest.raises(DataError, match="has no Images, nor has indoorCVPR_09 in it: is this the unpacked archive?"):
        read_mit67(tmp_path)


@pytest.mark.parametrize("line", ["<html>", "mall", "/mall.jpg", "mall/"])
def test_a_line_that_is_no_image_is_named(tmp_path: Path, line: str) -> None:
    path = mit67(tmp_path, tmp_path / "Images") / "TestImages.txt"
    path.write_text(f"{path.read_text()}\n{line}\n")
    with pytest.raises(DataError, match=f"TestImages.txt, line 4: expected <class>/<file>, got '{line}'"):
        read_mit67(tmp_path)


def test_a_class_that_is_only_tested_is_named(tmp_path: Path) -> None:
    path = mit67(tmp_path, tmp_path / "Images") / "TestImages.txt"
    path.write_text(f"{path.read_text()}\nzoo/lion.jpg\n")
    with pytest.raises(DataError, match="TestImages.txt: there is no class 'zoo'"):
        read_mit67(tmp_path)
