"""docs/lance.md: its commands run as they are printed."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from rankone.__main__ import run
from rankone.model.bundle import Bundle
from rankone.service.settings import Settings
from tests.pages import ROOT, commands, write_flowers

PAGE = "docs/lance.md"
(EMBED, PUBLISH, SERVE), (AGAIN, CHECK, LIST) = commands(PAGE)


def test_its_commands_publish_and_list(
    photos_root: Path,
    tiny: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("lance", reason="pylance, of rankone[lance], is not installed")
    write_flowers(photos_root / "train", tmp_path / "flowers" / "train", count=2)
    write_flowers(photos_root / "test", tmp_path / "flowers" / "test", count=1)
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "flowers").symlink_to(tiny.path)
    monkeypatch.chdir(tmp_path)
    more = EMBED.replace("train", "test").replace("--out job", "--out more")
    for line, said in (
        (EMBED, "8 images in 1 files in job"),
        (PUBLISH, "8 items of default are published"),
        (more, "4 images in 1 files in more"),
        (AGAIN, "12 items of default are published"),
        (CHECK, "recall@10"),
        (LIST, "compact"),
    ):
        _, name, *arguments = shlex.split(line)
        assert run(name, arguments) == 0, line
        assert said in capsys.readouterr().out
    words = shlex.split(SERVE)
    assert Settings(index=words[words.index("--index") + 1]).index == "lance:galleries"


def test_it_stays_short() -> None:
    assert len((ROOT / PAGE).read_text(encoding="utf-8").split()) <= 510
