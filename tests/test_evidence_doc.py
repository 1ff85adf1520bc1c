"""docs/evidence.md: its commands run as they are printed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rankone.model.bundle import Bundle
from tests.pages import ROOT, Shell, commands, write_flowers

PAGE = "docs/evidence.md"
((BEST, OTHER, ADD, MATCH, ASK, DRAW),) = commands(PAGE)


@pytest.fixture
def shell(photos_root: Path, bundle: Bundle, tmp_path: Path, here: bool) -> Shell:
    for split in ("train", "test"):
        write_flowers(photos_root / split, tmp_path / "flowers" / split, count=1)
    return Shell(tmp_path, here=here)


def test_commands_answer_as_the_page_says(shell: Shell, bundle: Bundle) -> None:
    assert bundle.manifest.classes is not None
    tulip = bundle.manifest.classes[2]  # the pages speak of flowers
    with shell.serving(f"rankone serve --bundle {bundle.path}"):
        told = [
            shell.run(line.replace("--class tulip", f"--class {tulip}"))
            for line in (BEST, OTHER, ADD, MATCH, ASK, DRAW)
        ]
    assert "rose.png: evidence for the class" in told[0]
    assert f"tulip.png: evidence for the class {tulip}" in told[1]
    assert "match.item.png: evidence for the match with flowers/train/rose/00.jpg, in the item" in told[3]
    (one,) = json.loads(told[4])["explanations"]
    assert np.sum(one["shares"]) + one["rest"] == pytest.approx(one["score"], abs=1e-4)
    for name in ("rose.png", "tulip.png", "match.png", "match.item.png"):
        with Image.open(shell.folder / name) as picture:
            assert picture.format == "PNG"


def test_it_stays_short() -> None:
    assert len((ROOT / PAGE).read_text(encoding="utf-8").split()) <= 410
