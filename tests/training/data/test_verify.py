"""Every problem is named at once, and what verifies is what trains."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rankone.training.data import DataError, load_folder
from rankone.training.data.benchmarks import read_cub, read_mit67
from rankone.training.data.registry import READERS
from rankone.training.data.verify import verify, verify_at
from tests.training.data.trees import aircraft, cub, dtd, image, mit67


def folder(root: Path) -> Path:
    for name in ("train/a/1.jpg", "train/a/2.jpg", "train/b/1.jpg", "test/a/3.jpg", "test/b/2.jpg"):
        image(root / name)
    return root


def test_a_good_data_set_has_no_problem(tmp_path: Path) -> None:
    found = verify_at("folder", folder(tmp_path), {})
    assert (dict(found.counts), found.problems) == ({"train": (3, 2), "test": (2, 2)}, ())


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    root = cub(tmp_path)
    data = read_cub(root)
    train, test = data.train.paths, data.test.paths
    train[0].unlink()
    test[0].unlink()
    train[3].write_bytes(train[3].read_bytes()[:400])
    train[4].write_text("not an image")
    shutil.copy(train[1], test[1])
    shutil.copy(train[2], train[5])
    shutil.copy(train[7], train[8])  # the same class and the same split: no harm
    published = {"classes": 200, "train": 5994, "test": 3}

    found = verify(replace(data, classes=(*data.classes, "004.Groove_billed_Ani")), published)
    assert dict(found.counts) == {"train": (9, 3), "test": (3, 3)}
    first, second = data.classes[:2]
    expected = [
        "4 classes, where the published set has 200",
        "train: 9 images, where the published split has 5,994",
        "train: no image of class 004.Groove_billed_Ani",
        "test: no image of class 004.Groove_billed_Ani",
        f"{train[0]}: missing",
        f"{test[0]}: missing",
        f"{train[3]}: cannot be decoded: ",
        f"{train[4]}: not an image: this is text; ",
        f"the same bytes: {train[1]} (train, {first}) and {test[1]} (test, {second})",
        f"the same bytes: {train[2]} (train, {first}) and {train[5]} (train, {second})",
    ]
    assert len(found.problems) == len(expected), found.problems
    for sentence in expected:
        assert sum(problem.startswith(sentence) for problem in found.problems) == 1, (sentence, found.problems)


def test_a_file_listed_twice_is_named_once_with_all_its_places(tmp_path: Path) -> None:
    root = mit67(tmp_path, tmp_path / "Images")
    train, test = root / "TrainImages.txt", root / "TestImages.txt"
    twice, across = "mall/shopping mall.jpg", "winecellar/winecellar_3_flickr.jpg"
    train.write_text(f"{train.read_text()}\n{twice}\n{across}\n")
    assert test.read_text().endswith(across)
    problems = verify(read_mit67(root)).problems
    images = tmp_path / "Images"
    assert sorted(problems) == [
        f"{images / twice} is listed 2 times: train, mall; train, mall",
        f"{images / across} is listed 2 times: train, winecellar; test, winecellar",
    ]
    (images / across).unlink()
    assert len(verify(read_mit67(root)).problems) == 3, "also where it is missing"


def test_duplicates_in_validation_count_too(tmp_path: Path) -> None:
    dtd(tmp_path)
    images = tmp_path / "images" / "banded"
    shutil.copy(images / "banded_0001.jpg", images / "banded_0003.jpg")
    (problem,) = (line for line in verify_at("dtd", tmp_path, {}).problems if "the same bytes" in line)
    assert "banded_0001.jpg (train, banded) and" in problem
    assert "banded_0003.jpg (validation, banded)" in problem
    assert not any("the same bytes" in line for line in verify_at("dtd", tmp_path, {"train": "train+val"}).problems)


def test_a_folder_that_could_not_be_trained_on_is_looked_at_all_the_same(tmp_path: Path) -> None:
    folder(tmp_path)
    image(tmp_path / "test/z/1.jpg")
    (tmp_path / "test/b/2.jpg").rename(tmp_path / "test/b/2.psd")
    (tmp_path / "train/a/1.jpg").write_bytes(b"")
    with pytest.raises(DataError):
        load_folder(tmp_path)
    problems = verify_at("folder", tmp_path, {}).problems
    for start in ("train: no image of class z", "test: no image of class b", f"{tmp_path}/train/a/1.jpg: the file is empty",
                  f"{tmp_path}/test/b/2.psd is left out"):  # fmt: skip
        assert sum(problem.startswith(start) for problem in problems) == 1, problems
    assert len(problems) == 4


def test_an_image_lower_than_its_banner_is_a_problem_only_where_the_banner_is_cut(tmp_path: Path) -> None:
    aircraft(tmp_path)
    image(tmp_path / "data" / "images" / "0034309.jpg", size=(40, 20))
    for options, count in (({"banner": "cut"}, 1), ({}, 0)):
        assert sum("as its banner" in line for line in verify_at("aircraft", tmp_path, options).problems) == count


def test_what_training_reads_is_no_problem(tmp_path: Path) -> None:
    """GIF, BMP and PNG called .jpg, CMYK and gray: only the counts of the small tree are not those published."""
    assert len(verify_at("mit67", mit67(tmp_path, tmp_path / "Images"), {}).problems) == 3


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may read everything, so the operating system's answer is given by hand."""
    data = load_folder(folder(tmp_path))
    (tmp_path / "train/a/1.jpg").unlink()
    original = Path.open

    def denied(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.name == "2.jpg" and path.parent.name == "a":
            raise PermissionError(13, "Permission denied")
        return original(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", denied)
    assert verify(data).problems == (
        f"{tmp_path}/train/a/1.jpg: missing",
        f"{tmp_path}/train/a/2.jpg cannot be read: Permission denied",
    )


@pytest.mark.parametrize(
    ("name", "options", "counts"),
    [
        ("cub", {}, {"train": 5994, "test": 5794}),
        ("aircraft", {}, {"train": 6667, "test": 3333}),
        ("aircraft", {"train": "train", "banner": "cut"}, {"train": 3334, "validation": 3333, "test": 3333}),
        ("mit67", {}, {"train": 5360, "test": 1340}),
        ("dtd", {"partition": 9}, {"train": 1880, "validation": 1880, "test": 1880}),
        ("dtd", {"train": "train+val"}, {"train": 3760, "test": 1880}),
        ("dtd", {"test": "val+test"}, {"train": 1880, "test": 3760}),
    ],
)
def test_what_is_published_depends_on_the_options(name: str, options: dict[str, Any], counts: dict[str, int]) -> None:
    assert READERS[name].expected(options) == {"classes": READERS[name].num_classes, **counts}


def test_expected_counts_have_the_splits_that_the_readers_make(tmp_path: Path) -> None:
    for name, write in {"cub": cub, "aircraft": aircraft, "dtd": dtd}.items():
        write(tmp_path / name)
    mit67(tmp_path / "mit67", tmp_path / "mit67" / "Images")
    for name in READERS:
        for options in ({}, {"train": "train"}, {"train": "train+val"}, {"test": "val+test"}):
            if set(options) <= set(READERS[name].read.__annotations__):
                expected = set(READERS[name].expected(options)) - {"classes"}
                assert set(verify_at(name, tmp_path / name, options).counts) == expected


def test_nothing_to_look_at_is_an_error(tmp_path: Path) -> None:
    for name, sentence in (
        ("cub", "has no train_test_split.txt"),
        ("folder", "train is missing"),
        ("imagenet", "there is no layout 'imagenet'; known are folder, photos, cub"),
    ):
        with pytest.raises(DataError, match=sentence):
            verify_at(name, tmp_path, {})
