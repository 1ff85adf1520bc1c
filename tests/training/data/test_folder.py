from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rankone.model.folders import images_in
from rankone.training.data import DataError, load, load_folder, load_photos
from rankone.training.data.folder import left_out, read_folder
from rankone.training.data.verify import verify_at
from rankone.training.run import DataRecord
from tests.training.data.trees import image


def folder(root: Path, *names: str) -> Path:
    for name in names:
        image(root / name)
    return root


def test_any_folder_of_class_folders_is_a_data_set(tmp_path: Path) -> None:
    names = ("train/b/1.png", "train/a/sub/2.JPG", "test/a/3.webp", "test/b/5.jpeg")
    folder(tmp_path, *names)
    (tmp_path / "train/a/notes.txt").write_text("not an image")
    data = load(str(tmp_path))
    assert data.classes == ("a", "b")
    assert data.train.paths == (tmp_path / "train/a/sub/2.JPG", tmp_path / "train/b/1.png")
    assert data.train.labels == (0, 1)
    assert (data.test.paths, data.test.labels) == ((tmp_path / "test/a/3.webp", tmp_path / "test/b/5.jpeg"), (0, 1))


def test_what_is_hidden_is_no_part_of_it(tmp_path: Path) -> None:
    folder(tmp_path, "train/a/1.jpg", "test/a/2.jpg")
    shown = load_folder(tmp_path)
    hidden = ("train/.cache/4.jpg", "train/a/._1.jpg", "train/a/.ipynb_checkpoints/1-checkpoint.jpg", ".x/y/1.jpg")
    assert load_folder(folder(tmp_path, *hidden)) == shown
    assert len(images_in(folder(tmp_path / ".hidden", "a/1.jpg"))) == 1, "what is asked for by name may be hidden"


def test_folders_that_are_no_data_set_say_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train is missing; a data set is a folder with train/<class>/.*data split"):
        load_folder(tmp_path)
    image(tmp_path / "train/a/1.jpg")
    with pytest.raises(DataError, match="test is missing"):
        load_folder(tmp_path)
    (tmp_path / "test").mkdir()
    with pytest.raises(DataError, match="test has no class folders"):
        load_folder(tmp_path)
    with pytest.raises(DataError, match="is neither a directory nor one of: photos"):
        load(str(tmp_path / "nowhere"))


def test_a_folder_that_exists_wins_over_a_built_in_name_and_the_log_says_so(
    photos_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder(tmp_path / "photos", "train/mine/1.jpg", "test/mine/1.jpg")
    monkeypatch.chdir(tmp_path)
    assert load("photos", root=photos_root.parent).classes == ("mine",)
    assert caplog.messages == ["reading the folder ./photos here, not the built-in data set of that name"]
    assert "mine" not in load_photos(photos_root.parent).classes
    monkeypatch.chdir(photos_root.parent)
    caplog.clear()
    assert "mine" not in load("photos", root=photos_root.parent).classes
    assert not caplog.messages


def test_classes_that_differ_are_named_all_of_them(tmp_path: Path) -> None:
    folder(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg", "test/z/1.jpg", "test/zebra/1.jpg")
    with pytest.raises(DataError) as raised:
        load(str(tmp_path))
    assert str(raised.value).split("; ") == [
        f"{tmp_path}/test has classes that train/ lacks: z, zebra",
        f"{tmp_path}/train has classes that test/ lacks: b",
    ]


def test_classes_without_images_are_named_all_of_them(tmp_path: Path) -> None:
    folder(tmp_path, *(f"{split}/{name}/1.jpg" for split in ("train", "test") for name in "abc"))
    (tmp_path / "train/a/1.jpg").unlink()
    (tmp_path / "test/b/1.jpg").rename(tmp_path / "test/b/1.psd")
    with pytest.raises(DataError) as raised:
        load(str(tmp_path))
    assert str(raised.value).split("; ") == [
        f"{tmp_path}/train has no images of: a (its folder is empty)",
        f"{tmp_path}/test has no images of: b (1 .psd: not read, convert it to JPEG or PNG ({tmp_path}/test/b/1.psd))",
    ]
    data = read_folder(tmp_path)
    assert (data.classes, data.train.labels, data.test.labels) == (("a", "b", "c"), (1, 2), (0, 2))


def test_images_that_are_left_out_are_named(tmp_path: Path) -> None:
    folder(tmp_path, "train/a/1.jpg", "test/a/2.jpg", "train/a/3.cr2", "test/4.jpg", "train/a/._5.cr2", "other/6.gif")
    (tmp_path / "train/a/notes.txt").write_text("not an image")
    assert list(left_out(tmp_path)) == [
        f"{tmp_path}/train/a/3.cr2 is left out: not read, convert it to JPEG or PNG",
        f"{tmp_path}/test/4.jpg is left out: it lies in no class folder",
    ]


def test_what_systems_keep_is_no_class(tmp_path: Path) -> None:
    folder(tmp_path, "train/a/1.jpg", "test/a/2.jpg", "train/@eaDir/3.jpg", "test/__MACOSX/a/4.jpg", "train/a/5.psd")
    data = load_folder(tmp_path)
    assert (data.classes, len(data.train), len(data.test)) == (("a",), 1, 1)
    assert data.left_out == (
        f"2: not the user's: a desktop, an archive or a file server keeps it (the first is {tmp_path}/train/@eaDir)",
        f"1 .psd: not read, convert it to JPEG or PNG ({tmp_path}/train/a/5.psd)",
    )


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_images_may_lie_next_to_those_for_training(tmp_path: Path, name: str) -> None:
    folder(tmp_path, *(f"{split}/{label}/1.jpg" for split in ("train", "test") for label in "ab"), f"{name}/b/2.jpg")
    data = load(str(tmp_path))
    assert data.validation is not None
    assert (data.validation.paths, data.validation.labels) == ((tmp_path / name / "b/2.jpg",), (1,))
    assert data.protocol == f"train/, {name}/ and test/ folders"
    assert list(data.splits) == ["train", "validation", "test"]
    folder(tmp_path, f"{name}/z/3.jpg")
    with pytest.raises(DataError, match=f"{name} has classes that train/ lacks: z$"):
        load(str(tmp_path))


def test_two_folders_of_validation_images_are_refused(tmp_path: Path) -> None:
    folder(tmp_path, "train/a/1.jpg", "test/a/2.jpg", "val/a/3.jpg", "validation/a/4.jpg")
    with pytest.raises(DataError, match="has val/ and validation/: only one folder can hold the validation images"):
        load(str(tmp_path))


def test_names_that_are_no_text_have_names_all_the_same(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9")
    folder(tmp_path / odd, f"train/{odd}/1.jpg", f"test/{odd}/2.jpg", "train/a\nb/3.jpg", "test/a\nb/4.jpg")
    data = load(str(tmp_path / odd))
    assert (data.name, data.classes) == (r"caf\udce9", (r"a\nb", r"caf\udce9"))
    assert [path.name for path in data.train.paths] == ["3.jpg", "1.jpg"]
    assert json.loads(DataRecord.of(data).model_dump_json())["classes"] == list(data.classes)
    data.train.paths[1].write_bytes(b"")
    (tmp_path / odd / "test" / odd / "2.jpg").rename(tmp_path / odd / "test" / odd / "x.psd")
    with pytest.raises(DataError) as raised:
        load(str(tmp_path / odd))
    assert str(raised.value).encode()
    found = verify_at("folder", tmp_path / odd, {})
    assert len(found.problems) == 3
    assert all("\n" not in problem and problem.encode() for problem in (*found.problems, *found.left_out))


def test_it_has_no_options(tmp_path: Path, photos_root: Path) -> None:
    folder(tmp_path, "train/a/1.jpg", "test/a/2.jpg")
    with pytest.raises(DataError, match="a folder of class folders has no options, got partition, banner"):
        load(str(tmp_path), {"partition": 3, "banner": "cut"})
    with pytest.raises(DataError, match="has no options"):
        load("photos", {"partition": 3}, root=photos_root.parent)


def test_it_has_a_name_wherever_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder(tmp_path / "birds", "train/a/1.jpg", "test/a/2.jpg"))
    assert load(".").name == load(str(tmp_path / "birds")).name == "birds"


def test_class_folders_named_like_a_benchmark_are_still_class_folders(tmp_path: Path) -> None:
    folder(tmp_path, "train/dtd/1.jpg", "test/dtd/2.jpg", "dtd/3.jpg")
    assert load(str(tmp_path)).classes == ("dtd",)
