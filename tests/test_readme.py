"""The README's commands: every curl answers with the fields that the README shows, and every command and target exists."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rankone.__main__ import COMMANDS
from rankone.client import Client
from rankone.training.data.folder import images_in
from tests.services import Process, Start, start

__all__ = ["start"]

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def curls() -> list[tuple[str, str]]:
    """Each command with what the README shows of its answer."""
    (block,) = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    return [(command, shown) for command, shown in re.findall(r"^\$ (curl .*)\n((?:[^$].*\n)?)", block, re.MULTILINE)]


def names(text: str) -> set[str]:
    """The names of all fields, of an answer or of an excerpt."""
    return set(re.findall(r'"(\w+)":', text))


@pytest.fixture
def service(start: Start, photos_root: Path, tmp_path: Path) -> Iterator[Process]:
    """In a directory as the demo leaves it: the photographs in data/photos, the test photographs in the index."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "photos").symlink_to(photos_root)
    (tmp_path / "README.md").write_text("not an image")
    process: Process = start()
    gallery = images_in(photos_root / "test")[:40]
    with process.ready() as client:
        client.add(gallery, [f"{path.parent.name}/{path.name}" for path in gallery])
    yield process
    process.close()


def test_every_curl_answers_as_shown(service: Process, tmp_path: Path) -> None:
    assert len(curls()) >= 18
    for command, shown in curls():
        arguments = shlex.split(command.replace("localhost:8000", service.url.removeprefix("http://")), comments=True)
        ended = subprocess.run([*arguments, "--silent"], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert names(shown) <= names(ended.stdout), f"{command}\n{ended.stdout[:500]}"
        if ended.stdout.startswith("{"):
            assert json.loads(ended.stdout).get("status", 200) in (200, 415, "alive", "ready"), ended.stdout
    with Client(service.url) as client:
        assert client.count() == 40


def test_every_command_and_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)", README)) <= targets
    assert set(re.findall(r"^ +\.venv/bin/rankone (\w+)", README, re.MULTILINE)) <= set(COMMANDS)
    assert len(targets) <= 12


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target).exists(), target
