"""Which images a job has, in files, folders, lists and stores, and what of them is left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rankone.model.folders import LeftOut
from rankone.service.job.sources import JobImage, NoSuchSource, find, id_of, read, read_list


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b/2.png", "a/1.jpg", "a/note.txt", "a/.hidden.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(name.encode())
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def test_images_are_sorted_once_and_under_the_ids_of_rankone_add(folder: Path) -> None:
    left_out = LeftOut()
    found = find(["photos/b/2.png", "photos", "photos/a"], left_out)
    assert [image.id for image in found] == ["photos/a/1.jpg", "photos/b/2.png"]
    assert [image.id for image in found] == [id_of(Path(image.id)) for image in found]
    assert [image.at for image in found] == [str(folder / "a" / "1.jpg"), str(folder / "b" / "2.png")]
    assert any(".txt" in line for line in left_out.lines())
    (above,) = find([f"{folder}/a/../a/1.jpg"], LeftOut())
    assert above.id == str(folder / "a" / "1.jpg")


def test_a_store_is_read_by_its_address(folder: Path) -> None:
    """By pyarrow's filesystems; `file://` is one of them."""
    left_out = LeftOut()
    found = find([f"file://{folder}/"], left_out)
    assert [image.at for image in found] == [
        f"file://{folder}/a/.hidden.jpg",
        f"file://{folder}/a/1.jpg",
        f"file://{folder}/b/2.png",
    ]
    assert [image.id for image in found] == [image.at for image in found]
    assert read(found[1], 100) == b"a/1.jpg"
    assert read(found[1], 3) == b"a/1."  # one more than may be, so that it is seen to be too long
    assert [image.at for image in find([found[2].at], left_out)] == [found[2].at]
    assert any(".txt" in line for line in left_out.lines())


def test_what_is_not_there_is_named(folder: Path) -> None:
    for place, sentence in (
        ("nothing", "nothing is not there"),
        (f"file://{folder}/nothing", "nothing is not there"),
        ("nowhere://x/y", "is no address of an object store"),
    ):
        with pytest.raises(NoSuchSource, match=sentence):
            find([place], LeftOut())
    with pytest.raises(NoSuchSource, match=r"the list list\.txt cannot be read"):
        read_list(Path("list.txt"))
    with pytest.raises(FileNotFoundError):
        read(JobImage("x", str(folder / "x")), 1)
    with pytest.raises(FileNotFoundError):
        read(JobImage("x", f"file://{folder}/x"), 1)


def test_a_list_has_one_place_a_line(folder: Path) -> None:
    Path("list.txt").write_text("photos/a\n\nphotos/b/2.png\n")
    assert read_list(Path("list.txt")) == ["photos/a", "photos/b/2.png"]


def test_images_that_cannot_be_items_are_named(folder: Path) -> None:
    long = folder.joinpath(*["d" * 100] * 3, "x.jpg")
    long.parent.mkdir(parents=True)
    long.write_bytes(b"")
    Path(os.fsdecode(os.fsencode(folder) + b"/b/\xff.jpg")).write_bytes(b"")
    left_out = LeftOut()
    assert len(find(["photos"], left_out)) == 2
    reasons = sorted(found.reason for found in left_out.lost)
    assert [reason.split(",")[0] for reason in reasons] == [
        "its path has 315 characters",
        "its path is no UTF-8",
    ]
