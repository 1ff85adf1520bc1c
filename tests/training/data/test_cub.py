from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from rankone.training.data import DataError, load
from rankone.training.data.benchmarks import read_cub
from rankone.training.data.picture import picture
from tests.training.data.trees import BIRDS, cub


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_three_lists_make_two_splits(tmp_path: Path, end: str) -> None:
    root = cub(tmp_path / "CUB_200_2011", end)
    data = read_cub(root)
    assert (data.name, data.classes, data.validation) == ("cub", BIRDS, None)
    assert data.train.labels == (0, 0, 0, 1, 1, 1, 2, 2, 2)
    assert data.test.labels == (0, 1, 2)
    assert data.test.paths == tuple(root / "images" / bird / f"{bird[4:]}_0001_7.jpg" for bird in BIRDS)
    assert all(path.is_file() for split in data.splits.values() for path in split.paths)


def test_the_folder_and_the_one_it_was_unpacked_in_are_the_same(tmp_path: Path) -> None:
    root = cub(tmp_path / "CUB_200_2011")
    (tmp_path / "attributes.txt").write_text("1 has_bill_shape::curved\n")  # beside the folder, in the archive
    assert read_cub(tmp_path) == read_cub(root) == load(str(tmp_path)) == load(str(root))


def test_labels_go_by_the_number_of_the_class_not_by_its_line(tmp_path: Path) -> None:
    root = cub(tmp_path)
    names = (root / "classes.txt").read_text().splitlines()
    (root / "classes.txt").write_text("\n".join(names[::-1]))
    data = read_cub(root)
    assert [data.classes[label] for label in data.test.labels] == list(BIRDS)


def test_gray_images_become_rgb(tmp_path: Path) -> None:
    gray = read_cub(cub(tmp_path)).train.paths[1]
    with Image.open(gray) as image:
        assert image.mode == "L"
    assert picture(gray).mode == "RGB"


@pytest.mark.parametrize("name", ["images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt"])
def test_a_list_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    (cub(tmp_path) / name).unlink()
    with pytest.raises(DataError, match=name):
        read_cub(tmp_path)


@pytest.mark.parametrize(
    ("name", "old", "new", "sentence"),
    [
        ("images.txt", "12 ", "13 ", "image 12 is in only one of images.txt and image_class_labels.txt"),
        ("train_test_split.txt", "12 1\n", "", "image 12 is in only one of images.txt and train_test_split.txt"),
        ("train_test_split.txt", "12 1", "12 2", "image 12 has '2'; 1 is for training, 0 for testing"),
        ("train_test_split.txt", "12 1", "1 1", "1 is there twice"),
        ("image_class_labels.txt", "12 3", "12 4", "image_class_labels.txt: there is no class '4'"),
        ("images.txt", "1 001", "id 001", "images.txt: expected a number and a value, got 'id 001"),
        ("classes.txt", "2 002.", "2", "classes.txt, line 2: expected two columns"),
    ],
)
def test_lists_that_do_not_go_together_are_refused(
    tmp_path: Path, name: str, old: str, new: str, sentence: str
) -> None:
    path = cub(tmp_path) / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=sentence):
        read_cub(tmp_path)


def test_load_names_the_first_file_that_is_missing(tmp_path: Path) -> None:
    data = read_cub(cub(tmp_path))
    data.train.paths[4].unlink()
    data.train.paths[7].unlink()
    with pytest.raises(
        DataError, match=f"2 files of {tmp_path} are missing, the first is {data.train.paths[4]};"
    ) as raised:
        load(str(tmp_path))
    assert f"`rankone data verify cub {tmp_path}` names all of them" in str(raised.value)


def test_by_name_it_lies_where_downloads_go(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="`rankone data download cub` fetches it"):
        load("cub", root=tmp_path)
    cub(tmp_path / "cub" / "CUB_200_2011")
    assert len(load("cub", root=tmp_path).train) == 9
    shutil.rmtree(tmp_path / "cub" / "CUB_200_2011" / "images")
    with pytest.raises(DataError, match="12 files of cub are missing"):
        load("cub", root=tmp_path)
