"""docs/short.md: its commands run as they are printed. `rankone reduce` itself is tested in tests/training/test_short.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rankone.model.bundle import Bundle
from tests.pages import ROOT, Shell, commands, write_flowers

PAGE = "docs/short.md"
((REDUCE, START, *USE),) = commands(PAGE)


@pytest.fixture
def shell(photos_root: Path, bundle: Bundle, tmp_path: Path, here: bool) -> Shell:
    for split in ("train", "test"):
        write_flowers(photos_root / split, tmp_path / "flowers" / split, count=2)
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "flowers-short").symlink_to(bundle.path)
    return Shell(tmp_path, here=here)


def test_commands_answer_as_the_page_says(shell: Shell) -> None:
    assert REDUCE.endswith(START.split()[3])  # the bundle that is served is the one that was made
    with shell.serving(START):
        _, created, added, found, embedded = map(shell.run, USE)
    assert np.load(shell.folder / "short.npy").shape == (8, 16)
    assert "index small: 16 numbers an item" in created
    assert "8 images added; the index holds 8" in added
    assert len(json.loads(found)["neighbours"]) == 3
    assert json.loads(embedded)["dim"] == 16


def test_it_stays_short() -> None:
    assert len((ROOT / PAGE).read_text(encoding="utf-8").split()) <= 370
