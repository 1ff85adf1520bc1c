from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from rankone.model.folders import SUFFIXES
from rankone.training.data import DataError, load_folder
from rankone.training.data import split as module
from rankone.training.data.split import divide, split
from tests.model.test_folders import nested
from tests.training.data.trees import image

__all__ = ["nested"]


def folder(root: Path, **counts: int) -> Path:
    for name, count in counts.items():
        for number in range(count):
            image(root / name / f"{number:03d}.jpg")
    return root


def listing(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_every_class_is_divided_in_the_same_proportion(tmp_path: Path) -> None:
    source = folder(tmp_path / "birds", a=20, b=10, c=5, d=2)
    before = listing(source)
    split(source, tmp_path / "out")
    data = load_folder(tmp_path / "out")
    assert Counter(data.classes[label] for label in data.test.labels) == {"a": 4, "b": 2, "c": 1, "d": 1}
    assert Counter(data.classes[label] for label in data.train.labels) == {"a": 16, "b": 8, "c": 4, "d": 1}
    written = {name.partition("/")[2]: data for name, data in listing(tmp_path / "out").items()}
    assert written == before == listing(source), "every image on one side, none lost, none changed"
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_the_same_seed_gives_the_same_files_and_another_others(tmp_path: Path) -> None:
    source = folder(tmp_path / "birds", a=20, b=10)
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        split(source, tmp_path / name, seed=seed)
    assert listing(tmp_path / "first") == listing(tmp_path / "again") != listing(tmp_path / "other")
    moved = shutil.copytree(source, tmp_path / "moved" / "elsewhere")
    folder(moved, c=4)
    split(moved, tmp_path / "wider")
    kept = {name: data for name, data in listing(tmp_path / "wider").items() if "/c/" not in name}
    assert kept == listing(tmp_path / "first"), "neither its place nor another class changes a draw"


@pytest.mark.parametrize("seed", range(20))
def test_files_with_the_same_bytes_stay_together(tmp_path: Path, seed: int) -> None:
    source = folder(tmp_path / "birds", a=10, b=4)
    for number in range(3):
        shutil.copy(source / "a/000.jpg", source / f"a/copy{number}.jpg")
    shutil.copy(source / "a/001.jpg", source / "b/as-b.jpg")
    division = divide(source, 0.3, seed)
    digests = {side: {path.read_bytes() for path in getattr(division, side)} for side in ("train", "test")}
    assert not digests["train"] & digests["test"]
    assert {source / "a/001.jpg", source / "b/as-b.jpg"} <= set(division.train), "two labels measure nothing"
    assert {path.parent.name for path in division.train} == {path.parent.name for path in division.test} == {"a", "b"}
    assert len(division.train) + len(division.test) == 18


@pytest.mark.parametrize("test", [0.001, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("copies", [0, 1, 8])
def test_a_class_is_on_both_sides_whatever_is_asked_for(tmp_path: Path, test: float, copies: int) -> None:
    source = folder(tmp_path, a=2, b=7)
    for number in range(copies):
        shutil.copy(source / "a/000.jpg", source / f"a/copy{number}.jpg")
    division = divide(source, test, 0)
    for side in (division.train, division.test):
        assert {path.parent.name for path in side} == {"a", "b"}
    assert len({path for path in division.test if path.parent.name == "b"}) == max(1, min(6, round(7 * test)))


def test_classes_that_cannot_be_on_both_sides_are_named_all_of_them(tmp_path: Path) -> None:
    source = folder(tmp_path / "birds", a=5, single=1, empty=0, same=1, foreign=1)
    (source / "empty").mkdir()
    shutil.copy(source / "same/000.jpg", source / "same/001.jpg")
    shutil.copy(source / "a/000.jpg", source / "foreign/000.jpg")
    shutil.copy(source / "a/001.jpg", source / "foreign/001.jpg")
    with pytest.raises(
        DataError,
        match=r"too few: empty \(its folder is empty\), foreign \(2 files\), same \(2 files\), single \(1 files\)$",
    ):
        split(source, tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["birds"]


def test_files_are_linked_where_they_can_be(tmp_path: Path) -> None:
    source = folder(tmp_path / "birds", a=4)
    split(source, tmp_path / "out")
    assert {path.stat().st_nlink for path in (tmp_path / "out").rglob("*.jpg")} == {2}


def test_and_copied_where_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_file_system(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_file_system)
    source = folder(tmp_path / "birds", a=4)
    split(source, tmp_path / "out")
    assert {path.stat().st_nlink for path in (tmp_path / "out").rglob("*.jpg")} == {1}
    assert {name.partition("/")[2]: data for name, data in listing(tmp_path / "out").items()} == listing(source)


def test_links_are_followed(tmp_path: Path) -> None:
    store, source = folder(tmp_path / "store", a=3), tmp_path / "birds" / "a"
    source.mkdir(parents=True)
    for path in store.rglob("*.jpg"):
        (source / path.name).symlink_to(os.path.relpath(path, source))
    split(source.parent, tmp_path / "deep" / "er" / "out")
    found = list((tmp_path / "deep/er/out").rglob("*.jpg"))
    assert len(found) == 3
    assert not any(path.is_symlink() for path in found)


def test_folders_within_a_class_are_kept(tmp_path: Path) -> None:
    source = tmp_path / "birds"
    for name in ("a/monday/1.jpg", "a/tuesday/1.jpg", "a/2.jpg", "a/.hidden.jpg", "a/notes.txt"):
        image(source / name)
    split(source, tmp_path / "out")
    written = {name.partition("/")[2] for name in listing(tmp_path / "out")}
    assert written == {"a/monday/1.jpg", "a/tuesday/1.jpg", "a/2.jpg"}


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    """And every kind that is read is divided, under its own ending."""
    source = tmp_path / "birds"
    names = [f"a/{number}{suffix}" for number, suffix in enumerate(chain.from_iterable(SUFFIXES.values()))]
    for name in (*names, "stray.jpg", "a/x.psd", "@eaDir/1.jpg"):
        image(source / name)
    assert split(source, tmp_path / "out").left_out == (
        f"1: not the user's: a desktop, an archive or a file server keeps it ({source}/@eaDir)",
        f"1 .jpg: in no class folder ({source}/stray.jpg)",
        f"1 .psd: not read, convert it to JPEG or PNG ({source}/a/x.psd)",
    )
    assert {name.partition("/")[2] for name in listing(tmp_path / "out")} == set(names)


def test_1500_nested_folders(nested: Path, tmp_path: Path) -> None:
    """Within the limit of the length of a path; beyond, it is a sentence."""
    source = nested.rename(tmp_path / "a")
    image(source / "2.jpg")
    out = Path(tempfile.mkdtemp()) / "o"
    try:
        assert len(split(tmp_path, out, 0.5).train) == 1
    finally:
        subprocess.run(["rm", "-rf", str(out.parent)], check=True)
        (source / "2.jpg").unlink()
        source.rename(nested)


def test_half_of_it_is_never_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder(tmp_path / "birds", a=6)
    placed: list[Path] = []
    original = module._link_or_copy

    def full(path: Path, target: Path) -> None:
        if len(placed) == 3:
            raise OSError(28, "No space left on device")
        placed.append(target)
        original(path, target)

    monkeypatch.setattr(module, "_link_or_copy", full)
    with pytest.raises(DataError, match="out cannot be written: .*No space left"):
        split(source, tmp_path / "out")
    assert len(placed) == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["birds"]


def test_what_cannot_be_split_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    source = folder(tmp_path / "birds", a=4)
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "nothing").mkdir()
    folder(tmp_path / "done", train=1, test=1)
    folder(tmp_path / "parts", train=1, val=1)
    folder(tmp_path / "one", Train=1)
    assert len(divide(folder(tmp_path / "vehicles", train=2, bus=2), 0.5, 0).test) == 2, "a train is a vehicle, too"
    for arguments, sentence in (
        ((source, tmp_path / "there"), "there exists; give a folder that does not"),
        ((source, tmp_path / "link"), "link exists"),
        ((tmp_path / "nowhere", tmp_path / "out"), "nowhere is not a folder"),
        ((tmp_path / "nothing", tmp_path / "out"), "has no class folders; a class is a folder with its images"),
        ((tmp_path / "done", tmp_path / "out"), "has train/ and test/ already"),
        (
            (tmp_path / "parts", tmp_path / "out"),
            "has train/ and val/, which are splits, not classes. .* give .*/parts/train",
        ),
        ((tmp_path / "one", tmp_path / "out"), "has Train/, which are splits"),
        ((source, source / "out"), "where it would become one more class"),
        ((source, tmp_path / "out", 0.0), "between 0 and 1, not 0.0"),
        ((source, tmp_path / "out", 1.0), "between 0 and 1, not 1.0"),
    ):
        with pytest.raises(DataError, match=sentence):
            split(*arguments)
    assert not (tmp_path / "out").exists()
    assert list(listing(source)) == [f"a/{number:03d}.jpg" for number in range(4)]
