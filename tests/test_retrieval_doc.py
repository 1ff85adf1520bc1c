"""docs/retrieval.md: its commands run as they are printed, in order, with the answers that it promises."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from rankone.client import Client
from rankone.model.bundle import Bundle
from tests.pages import ROOT, Shell, commands, write_flowers

PAGE = "docs/retrieval.md"
(START, *USE), MAINTAIN, ALONE = commands(PAGE)


@pytest.fixture
def shell(photos_root: Path, bundle: Bundle, tmp_path: Path, here: bool) -> Shell:
    write_flowers(photos_root / "train", tmp_path / "flowers" / "train", count=4)
    write_flowers(photos_root / "test", tmp_path / "flowers" / "test", count=1)
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "flowers").symlink_to(bundle.path)
    return Shell(tmp_path, here=here)


def test_commands_answer_as_the_page_says(shell: Shell) -> None:
    with shell.serving(START) as service:
        check_use(shell)
        check_maintenance(shell)
        for line in ALONE:
            refused = shell.attempt(line)
            assert (refused.returncode, "another process is using it" in refused.stderr) == (2, True), line
        service.send_signal(signal.SIGTERM)
        service.wait(30)
    restored, imported, checked = map(shell.run, ALONE)
    assert "16 items in the index tuesday" in restored
    assert "16 items added" in imported
    assert "recall@10 1.0000" in checked
    with shell.serving(START), Client(shell.url) as client:
        assert {index.name: index.count for index in client.indexes()} == {
            "copy": 16,
            "default": 16,
            "large": 16,
            "tuesday": 16,
        }
        assert client.describe_index("large").properties["recall"] == 1


def check_use(shell: Shell) -> None:
    add, search, *curls = USE
    assert "16 images added; the index holds 16" in shell.run(add)
    (line,) = shell.run(search).splitlines()
    assert flowers(json.loads(line)["neighbours"])[0] == "rose"
    added, listed, others, more, deleted, made = [answer(shell, line) for line in curls]
    assert added["ids"] == ["rose-1"]
    assert listed["items"] == [{"id": "rose-1", "metadata": {"by": "me", "year": 2024}}]
    assert flowers(others["results"][0])[0] == "rose"
    assert "rose-1" not in [hit["id"] for hit in others["results"][0]]
    assert flowers(more["results"][0])[0] == "rose"
    assert len(others["results"][0]) == len(more["results"][0]) == 3
    assert deleted == {"deleted": 1}
    assert (made["kind"], made["thumbnails"], made["count"]) == ("compact", True, 0)


def check_maintenance(shell: Shell) -> None:
    listed, verified, alike, saved, exported, rebuilt = map(shell.run, MAINTAIN)
    assert re.search(r"default +16 +10,000 +exact +float16", listed)
    assert re.search(r"large +0 +10,000 +compact", listed)
    assert "every row is whole" in verified
    pairs = [json.loads(line) for line in alike.splitlines()]
    assert all("same" in pair or pair["score"] >= 0.98 for pair in pairs)
    assert "16 items in monday.sqlite" in saved
    assert "16 items in items.npy" in exported
    assert "16 items in the index large" in rebuilt
    with Client(shell.url) as client:
        assert [item.id for item in client.items("large")] == [item.id for item in client.items()]


def answer(shell: Shell, line: str) -> Any:
    found = json.loads(shell.run(line))
    assert found.get("type") != "about:blank", f"{line}\n{found}"
    return found


def flowers(hits: list[dict[str, Any]]) -> list[str]:
    return [Path(hit["id"]).parent.name for hit in hits]


def test_it_stays_short() -> None:
    assert len((ROOT / PAGE).read_text(encoding="utf-8").split()) <= 535
