"""Which files of a folder are images, and that nothing else is passed over without a word."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rankone.model.folders import SEEN, LeftOut, folders_in, images_in, name_of, walk

JUNK = (
    ".hidden.jpg",
    "._1.jpg",
    ".Trash-1000/files/1.jpg",
    ".git/1.png",
    "@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg",
    "sub/@eaDir/2.jpg",
    "__MACOSX/1.jpg",
    "#recycle/1.jpg",
    "$RECYCLE.BIN/1.jpg",
    "Thumbs.db",
    "desktop.ini",
)


def files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def lines_of(folder: Path) -> list[str]:
    left_out = LeftOut()
    images_in(folder, left_out)
    return left_out.lines()


@pytest.fixture
def nested(tmp_path: Path) -> Iterator[Path]:
    """A folder with 1,500 nested ones in it, an image in the innermost."""
    top = tmp_path / "nested"
    top.mkdir()
    deepest = top
    for _ in range(1500):
        deepest /= "d"
        deepest.mkdir()
    (deepest / "1.jpg").touch()
    yield top
    (deepest / "1.jpg").unlink()
    while deepest != top:  # shutil.rmtree, and so pytest, would run into the limit of recursion
        deepest.rmdir()
        deepest = deepest.parent


def test_what_systems_keep_is_passed_over_and_counted(tmp_path: Path) -> None:
    files(tmp_path, "1.jpg", "sub/2.PNG", *JUNK)
    assert images_in(tmp_path) == [tmp_path / "1.jpg", tmp_path / "sub/2.PNG"]
    assert lines_of(tmp_path) == [
        f"7: not the user's: a desktop, an archive or a file server keeps it (the first is {tmp_path}/#recycle)",
        f"4: hidden (the first is {tmp_path}/.Trash-1000)",
    ]
    assert folders_in(tmp_path) == ["sub"]
    assert images_in(tmp_path / "@eaDir" / "1.jpg"), "what is asked for by name is looked through"


def test_what_is_left_out_is_named_by_ending_and_reason(tmp_path: Path) -> None:
    files(tmp_path, "1.jpg", "a.psd", "b/b.PSD", "c.cr2", "notes.txt", "README")
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    assert lines_of(tmp_path) == [
        f"2 .psd: not read, convert it to JPEG or PNG (the first is {tmp_path}/a.psd)",
        f"1: not named as images are ({tmp_path}/README)",
        f"1 .cr2: not read, convert it to JPEG or PNG ({tmp_path}/c.cr2)",
        f"1 .txt: not named as images are ({tmp_path}/notes.txt)",
        f"1 .png: not a file ({tmp_path}/pipe.png)",
        f"{tmp_path}/gone.jpg: a link to nothing",
    ]
    files(tmp_path, *(f"x.{number:03}" for number in range(100)))
    assert lines_of(tmp_path)[-2] == "85 more, of 85 other endings or reasons"


def test_links_are_followed_once(tmp_path: Path) -> None:
    store = files(tmp_path / "store", "1.jpg", "deep/2.jpg")
    root = files(tmp_path / "root", "0.jpg", "b/3.jpg")
    (root / "a").symlink_to(store)
    (root / "again").symlink_to(store / "deep")
    (root / "b" / "up").symlink_to(root)
    (root / "b" / "above").symlink_to(tmp_path)
    (root / "self").symlink_to("self")
    assert images_in(root) == [root / name for name in ("0.jpg", "a/1.jpg", "a/deep/2.jpg", "b/3.jpg")]
    left_out = {found.path.relative_to(root).as_posix(): found for found in walk(root) if found.reason}
    assert [name for name, found in left_out.items() if found.reason == SEEN] == ["again", "b/above", "b/up"]
    assert left_out["self"].reason == "cannot be read: Too many levels of symbolic links"
    assert left_out["self"].is_lost
    (root / "class").symlink_to("..")
    assert [found.reason for found in walk(root / "class")] == [SEEN], "from a class folder back up, too"


def test_1500_nested_folders(nested: Path) -> None:
    assert [path.name for path in images_in(nested)] == ["1.jpg"]


def test_a_path_that_is_too_long_is_named(tmp_path: Path) -> None:
    home = os.getcwd()
    os.chdir(tmp_path)
    try:
        for _ in range(20):
            os.mkdir("n" * 250)
            os.chdir("n" * 250)
        left_out = LeftOut()
        assert images_in(tmp_path, left_out) == []
        assert [found.reason for found in left_out.lost] == ["cannot be read: File name too long"]
    finally:
        for _ in range(20):
            os.chdir("..")
            os.rmdir("n" * 250)
        os.chdir(home)


def test_a_folder_that_cannot_be_read_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may read everything, so the operating system's answer is given by hand."""
    files(tmp_path, "a/1.jpg", "b/2.jpg")
    original = os.scandir

    def denied(path: Path) -> object:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert images_in(tmp_path) == [tmp_path / "b/2.jpg"]
    assert lines_of(tmp_path) == [f"{tmp_path}/a: cannot be read: Permission denied"]


def test_every_name_is_one_line_of_text() -> None:
    assert name_of(Path(os.fsdecode(b"caf\xe9.png"))).encode() == b"caf\\udce9.png"
    assert name_of("a\nb\r\x1b[31m\x85\u2028.png") == r"a\nb\r\x1b[31m\x85\u2028.png"
    assert name_of(Path("é/👩\u200d🚀 x.png")) == "é/👩\u200d🚀 x.png"
