"""README.md: its commands run as they are printed, on a folder of photographs; what it names exists."""

from __future__ import annotations

import json
import re
import runpy
import tomllib
from pathlib import Path

import pytest

from tests.pages import FLOWERS, ROOT, Shell, blocks, commands, write_flowers

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def shell(here: bool, tmp_path: Path, request: pytest.FixtureRequest) -> Shell:
    """In this process, whose VGG16 is a single layer, or with the whole network in a process for each command."""
    if here:
        request.getfixturevalue("light_network")
        request.getfixturevalue("_undrawn")
    return Shell(tmp_path, here=here)


def test_every_command_runs_and_the_search_finds_flowers_of_the_same_class(
    photos_root: Path, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_flowers(photos_root / "train", tmp_path / "pictures", count=8)
    ((split, verify, train, export, evaluate, serve, add, search),) = commands("README.md")
    assert "test" in shell.run(split)
    assert "no problems" in shell.run(verify)
    for line in (train, export, evaluate):
        shell.run(line)
    reports = [
        json.loads((tmp_path / path / "report.json").read_text()) for path in ("runs/flowers", "bundles/flowers-report")
    ]
    assert reports[0]["top1"] == reports[1]["top1"] > 0.5
    assert (tmp_path / "runs/flowers/report.html").is_file()
    (code,) = blocks("README.md", "python")
    with shell.serving(serve):
        assert "24 images added; the index holds 24" in shell.run(add)
        answers = [json.loads(line) for line in shell.run(search).splitlines()]
        (tmp_path / "search.py").write_text(code.replace("http://127.0.0.1:8000", shell.url), encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        runpy.run_path("search.py")
    assert [len(answer["neighbours"]) for answer in answers] == [5] * 8
    flowers = [(answer["path"].split("/")[2], answer["neighbours"][0]["id"].split("/")[2]) for answer in answers]
    assert sum(asked == found for asked, found in flowers) >= 6
    assert {asked for asked, _ in flowers} == set(FLOWERS)
    assert capsys.readouterr().out.count("Neighbour(") == 5 * 8


def test_every_target_and_extra_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "setup", "test"} <= set(re.findall(r"\bmake ([a-z]+)", README)) <= targets
    assert len(targets) <= 13  # few enough to be read
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = {name for group in re.findall(r"\[([a-z,]+)\](?!\()", README) for name in group.split(",")}
    assert named == {"cpu", "gpu", "train", "layers"} <= extras.keys()


def test_every_folder_of_the_table_exists_and_none_is_left_out() -> None:
    named = set(re.findall(r"^\| `([a-z/]+)/` \|", README, re.MULTILINE))
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"rankone", "tests"}
    assert named == rooms | {"rankone/cli"}


def test_every_link_and_picture_exists() -> None:
    links = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert "docs/images/search.png" in links
    for link in links:
        page, _, heading = link.partition("#")
        assert (ROOT / page).exists(), link
        if heading:
            titles = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in [title.lower().replace(" ", "-") for title in titles], link


def test_it_stays_short() -> None:
    assert len(README.split()) <= 640
    assert "photos/" not in README  # a folder of this name would be taken for the built-in data set
    assert len(blocks("README.md", "console")) == 1
