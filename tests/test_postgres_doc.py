"""docs/postgres.md: its commands run as they are printed, but for the ports and the address of the database."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from rankone.client import Client
from rankone.model.bundle import Bundle
from tests.pages import ROOT, commands, write_flowers

PAGE = "docs/postgres.md"
(FIRST, SECOND, ADD, SEARCH), (EXPORT, IMPORT, LIST) = commands(PAGE)


class Runner:
    """Runs the page's commands in a folder."""

    def __init__(self, folder: Path, database: str) -> None:
        with socket.socket() as one, socket.socket() as other:
            for probe in (one, other):
                probe.bind(("127.0.0.1", 0))
            self.ports = [probe.getsockname()[1] for probe in (one, other)]
        self._folder, self._database = folder, database

    def words(self, line: str) -> list[str]:
        line = line.removesuffix("&").replace("postgresql:///rankone", shlex.quote(self._database))
        for printed, port in zip(("8000", "8001"), self.ports, strict=True):
            line = line.replace(printed, str(port))
        return [sys.executable, "-m", *shlex.split(line)]

    def start(self, line: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.words(line), cwd=self._folder, env={**os.environ, "PYTHONPATH": str(ROOT)})

    def run(self, line: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
        ended = subprocess.run(
            self.words(line), cwd=self._folder, env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, f"{line}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout


@pytest.fixture
def runner(photos_root: Path, bundle: Bundle, tmp_path: Path, database: str) -> Runner:
    write_flowers(photos_root / "train", tmp_path / "flowers" / "train", count=2)
    write_flowers(photos_root / "test", tmp_path / "flowers" / "test", count=1)
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "flowers").symlink_to(bundle.path)
    return Runner(tmp_path, database)


def test_two_services_answer_as_the_page_says(runner: Runner, database: str, tmp_path: Path) -> None:
    with ExitStack() as ended:
        for line in (FIRST, SECOND):
            service = runner.start(line)
            ended.callback(service.wait)
            ended.callback(service.kill)
        for port in runner.ports:
            with Client(f"http://127.0.0.1:{port}") as client:
                client.wait_until_ready(60)
        assert "8 images added; the index holds 8" in runner.run(ADD)
        assert len(json.loads(runner.run(SEARCH))["neighbours"]) == 3
    assert runner.run(EXPORT.replace("indexes", "postgresql:///rankone")) == "8 items in items.npy\n"
    assert "8 items added" in runner.run(IMPORT)
    listed = runner.run(LIST)
    assert "default" in listed
    assert "moved" in listed


def test_it_stays_short() -> None:
    assert len((ROOT / PAGE).read_text(encoding="utf-8").split()) <= 430
