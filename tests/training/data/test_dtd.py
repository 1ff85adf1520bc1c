from __future__ import annotations

from pathlib import Path

import pytest

from rankone.training.data import DataError, load
from rankone.training.data.benchmarks import PARTITIONS, read_dtd
from tests.training.data.trees import TEXTURES, dtd


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_each_partition_divides_all_images_anew(tmp_path: Path, end: str) -> None:
    dtd(tmp_path, end)
    trained = set()
    for partition in PARTITIONS:
        data = read_dtd(tmp_path, partition)
        assert data.classes == TEXTURES
        assert data.train.labels == (0, 0, 1, 1, 2, 2)
        assert {name: len(split) for name, split in data.splits.items()} == {"train": 6, "validation": 6, "test": 6}
        paths = [path for split in data.splits.values() for path in split.paths]
        assert sorted(paths) == sorted((tmp_path / "images").rglob("*.jpg"))
        trained.add(data.train.paths)
    assert len(trained) == 6, "six of the small tree's ten partitions differ"


@pytest.mark.parametrize(
    ("options", "counts", "words"),
    [
        ({}, {"train": 6, "validation": 6, "test": 6}, "partition 1, trained on train, tested with test"),
        ({"train": "train+val"}, {"train": 12, "test": 6}, "partition 1, trained on train+val, tested with test"),
        ({"test": "val+test"}, {"train": 6, "test": 12}, "partition 1, trained on train, tested with val+test"),
        ({"partition": 10, "train": "train+val"}, {"train": 12, "test": 6}, "partition 10, trained on train+val"),
        ({"partition": "3"}, {"train": 6, "validation": 6, "test": 6}, "partition 3"),
    ],
)
def test_images_for_validation_go_where_they_are_asked_for(
    tmp_path: Path, options: dict[str, str], counts: dict[str, int], words: str
) -> None:
    data = load(str(dtd(tmp_path)), options)
    assert {name: len(split) for name, split in data.splits.items()} == counts
    assert data.protocol.startswith(words)
    assert not set(data.train.paths) & set(data.test.paths)


def test_images_for_validation_are_not_on_both_sides(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="images for validation cannot be trained on and tested with; choose one"):
        load(str(dtd(tmp_path)), {"train": "train+val", "test": "val+test"})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"partition": 0}, "DTD has partitions 1 to 10, not 0"),
        ({"partition": 11}, "DTD has partitions 1 to 10, not 11"),
        ({"partition": "first"}, "options of dtd: partition: Input should be a valid integer"),
        ({"train": "val"}, "options of dtd: train: Input should be 'train' or 'train\\+val'"),
        ({"test": "train"}, "options of dtd: test: Input should be 'test' or 'val\\+test'"),
        ({"fold": 1, "banner": "cut"}, "fold: Unexpected keyword argument; banner: Unexpected keyword argument"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        load(str(dtd(tmp_path)), options)


def test_the_folder_and_the_one_it_was_unpacked_in_are_the_same(tmp_path: Path) -> None:
    root = dtd(tmp_path / "dtd")
    assert read_dtd(tmp_path) == read_dtd(root) == load(str(tmp_path)) == load(str(root))


def test_a_list_that_is_missing_is_named(tmp_path: Path) -> None:
    (dtd(tmp_path) / "labels" / "val7.txt").unlink()
    read_dtd(tmp_path, partition=6)
    with pytest.raises(DataError, match="val7.txt cannot be read"):
        read_dtd(tmp_path, partition=7)


def test_lines_and_classes_that_are_wrong_are_named(tmp_path: Path) -> None:
    path = dtd(tmp_path) / "labels" / "test1.txt"
    path.write_text(f"{path.read_text()}woven/woven_0001.jpg\n")
    with pytest.raises(DataError, match="test1.txt: there is no class 'woven'"):
        read_dtd(tmp_path)
    path.write_text("banded_0001.jpg\n")
    with pytest.raises(DataError, match="test1.txt, line 1: expected <class>/<file>, got 'banded_0001.jpg'"):
        read_dtd(tmp_path)
