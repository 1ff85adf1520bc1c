"""docs/training.md: every command, as it stands, on a folder of photographs, in order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rankone.model.folders import images_in
from tests.pages import FLOWERS, Shell, blocks, commands, write_flowers

PAGE = "docs/training.md"
(COMMANDS,) = commands(PAGE)
RECIPE = blocks(PAGE, "yaml")[0]


@pytest.fixture
def shell(photos_root: Path, tmp_path: Path, here: bool, request: pytest.FixtureRequest) -> Shell:
    """A user's folder: four classes, eight photographs each, and the recipe of the page.

    In this process VGG16 is a single layer; the slow test, with a process for each command, has the whole network.
    """
    if here:
        request.getfixturevalue("light_network")
        request.getfixturevalue("_undrawn")
    write_flowers(photos_root / "train", tmp_path / "pictures", count=8)
    (tmp_path / "small.yaml").write_text(RECIPE, encoding="utf-8")
    return Shell(tmp_path, here=here)


def test_every_command_of_the_page_runs(shell: Shell) -> None:
    split, verify, train, export, evaluate, serve, classify, add, search, curl = COMMANDS
    for line in (split, verify, train, export, evaluate):
        shell.run(line)
    run = shell.folder / "runs" / "mine"
    assert json.loads((run / "dataset.json").read_text())["classes"] == list(FLOWERS)
    for name in ("report.html", "report.md", "report.json", "metrics.jsonl", "recipe.yaml", "dataset.json"):
        assert (run / name).exists()
    ours, served = (
        json.loads((shell.folder / path / "report.json").read_text()) for path in ("runs/mine", "bundles/mine-report")
    )
    assert served["top1"] == ours["top1"]
    with shell.serving(serve):
        assert len(shell.run(classify).splitlines()) == 8
        shell.run(add)
        assert len(shell.run(search).splitlines()) == 8
        image = images_in(shell.folder / "flowers" / "test" / "rose")[0]  # the test images are drawn
        answer = json.loads(shell.run(curl.replace("flowers/test/rose/00.jpg", str(image))))
        assert answer["predictions"][0][0]["label"] in FLOWERS
