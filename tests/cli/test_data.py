"""`rankone data` as a user runs it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rankone.__main__ import run
from rankone.cli import data as commands
from rankone.training.data import load, load_folder
from tests.training.data.trees import cub, dtd, image


def folder(root: Path) -> Path:
    for name in ("a/1.jpg", "a/2.jpg", "a/3.jpg", "b/4.jpg", "b/5.jpg"):
        image(root / name)
    return root


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_split_then_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "my birds"
    assert run("data", ["split", str(folder(tmp_path / "photos")), str(out), "--test", "0.4", "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    table = [["split", "images", "classes"], ["train", "3", "2"], ["test", "2", "2"]]
    assert words(printed)[:3] == table
    assert printed.splitlines()[-1] == f"next: rankone train '{out}' 'runs/my birds'"
    assert len(load_folder(out).test) == 2
    assert run("data", ["verify", "folder", str(out)]) == 0
    assert words(capsys.readouterr().out) == [*table, ["no", "problems"]]


@pytest.mark.parametrize(("out", "said"), [("photos", "photos"), ("cub/", "cub"), ("birds", "birds")])
def test_the_next_command_trains_on_the_folder_and_not_on_the_data_set_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], out: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("data", ["split", str(folder(tmp_path / "pictures")), out]) == 0
    command = capsys.readouterr().out.splitlines()[-1]
    assert command == f"next: rankone train {said} runs/{out.rstrip('/')}"
    assert load(command.split()[3]).classes == ("a", "b")


def test_the_draw_is_reachable(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    for number in range(30):
        image(source / "a" / f"{number}.jpg")
    drawn: dict[Path, list[str]] = {}
    for seed in ("0", "0", "1"):
        out = tmp_path / f"out{len(drawn)}{seed}"
        run("data", ["split", str(source), str(out), "--seed", seed])
        drawn[out] = sorted(path.name for path in (out / "test" / "a").iterdir())
        shutil.rmtree(out)
    first, *others = drawn.values()
    assert [first == other for other in others] == [True, False]


def test_problems_are_printed_one_a_line_and_the_status_is_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """However long their paths are, and with the counts of what is published."""
    root = cub(tmp_path / ("long name " * 20))
    path = root / "images" / "002.Laysan_Albatross" / "Laysan_Albatross_0001_7.jpg"
    path.write_bytes(b"broken")
    with pytest.raises(SystemExit) as ended:
        run("data", ["verify", "cub", str(root)])
    assert ended.value.code == 1
    printed = capsys.readouterr().out.splitlines()
    assert [line.split() for line in printed[:3]] == [
        ["split", "images", "classes"],
        ["train", "9", "3"],
        ["test", "3", "3"],
    ]
    assert printed[3:6] == [
        "3 classes, where the published set has 200",
        "train: 9 images, where the published split has 5,994",
        "test: 3 images, where the published split has 5,794",
    ]
    assert printed[6].startswith(f"{path}: not an image: this is text")
    assert printed[7:] == ["4 problems"]


def test_options_of_the_reader_are_reachable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(dtd(tmp_path))
    (tmp_path / "labels" / "test3.txt").write_text("woven/1.jpg\n")
    flags = ["--reader", "partition", "2", "train", "train+val"]
    with pytest.raises(SystemExit):
        run("data", ["verify", "dtd", root, *flags])
    assert ["train", "12", "3"] in words(capsys.readouterr().out)
    assert run("data", ["verify", "dtd", root, "--reader", "partition", "3"]) == 2
    assert "test3.txt: there is no class 'woven'" in capsys.readouterr().err
    assert run("data", ["verify", "dtd", root, "--reader", "partition", "12"]) == 2
    assert "DTD has partitions 1 to 10, not 12" in capsys.readouterr().err
    assert run("data", ["verify", "folder", root, "--reader", "partition", "1"]) == 2
    assert "has no options" in capsys.readouterr().err


def test_download_puts_it_where_training_looks_and_says_what_is_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []
    monkeypatch.setattr(commands, "fetch", lambda name, home: fetched.append((name, home)))
    assert run("data", ["download", "cub"]) == 0
    assert run("data", ["download", "dtd", "--root", str(tmp_path)]) == 0
    assert fetched == [("cub", Path("data/cub")), ("dtd", tmp_path / "dtd")]
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["next: rankone data verify cub data/cub", f"next: rankone data verify dtd {tmp_path}/dtd"]


def test_mistakes_end_with_one_sentence_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usable = tmp_path / "usable"
    for split in ("train", "test"):
        folder(usable / split)
    for arguments, sentence in (
        (("verify", "imagenet", tmp_path), "there is no layout 'imagenet'"),
        (("verify", "cub", tmp_path), "is this the unpacked archive?"),
        (("verify", "folder", tmp_path / "nowhere"), "nowhere/train is missing"),
        (("verify", "folder", usable, "--threads", 0), "at least one thread is needed, not 0"),
        (("download", "imagenet"), "imagenet cannot be downloaded; these can: cub, aircraft, mit67, dtd"),
        (("split", tmp_path / "nowhere", tmp_path / "out"), "nowhere is not a folder"),
        (("split", tmp_path, tmp_path), "exists; give a folder that does not"),
    ):
        assert run("data", [str(argument) for argument in arguments]) == 2
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["verify", "--help"], ["download", "--help"], ["split", "--help"]])
def test_every_command_explains_itself(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("data", arguments)
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "usage: rankone data" in printed
    for name in ("verify", "download", "split") if len(arguments) == 1 else ():
        assert name in printed


def test_without_a_command_the_three_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("data", [])
    assert ended.value.code == 2
    assert "verify" in capsys.readouterr().err


def test_data_sets_are_looked_at_without_torch() -> None:
    code = "import sys; import rankone.cli.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
