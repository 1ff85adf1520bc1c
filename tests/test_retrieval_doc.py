"""docs/retrieval.md: every command, as it stands, on a folder of photographs, in order."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rankone.client import Client, ServiceError
from rankone.model.bundle import Bundle
from rankone.training.data.folder import images_in
from tests.conftest import CLASSES
from tests.test_training_doc import port

__all__ = ["port"]

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "retrieval.md").read_text(encoding="utf-8")
BESIDE, ALONE = (
    [line.removeprefix("$ ") for line in block.splitlines()]
    for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
)


@pytest.fixture
def home(photos_root: Path, bundle: Bundle, tmp_path: Path) -> Path:
    """A user's folder: their bundle, and some pictures."""
    for name in (*CLASSES, "moon"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for place, path in enumerate(images_in(photos_root / "train" / name)[:4]):
            shutil.copy(path, tmp_path / "pictures" / name / f"{place:02}.png")
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "mine").symlink_to(bundle.path)
    return tmp_path


class Shell:
    """Runs the page's commands in the user's folder, against a port of its own."""

    def __init__(self, home: Path, port: int) -> None:
        self._home, self._port = home, port
        self._environment = {**os.environ, "PYTHONPATH": os.getcwd(), "RANKONE_PORT": str(port), "COLUMNS": "120"}

    def start(self, line: str) -> subprocess.Popen[str]:
        started = subprocess.Popen(
            self._command(line.removesuffix(" &")), cwd=self._home, env=self._environment, text=True
        )
        deadline = time.monotonic() + 60
        with Client(f"http://127.0.0.1:{self._port}") as client:
            while time.monotonic() < deadline:
                try:
                    client.wait_until_ready(timeout_s=0.5)
                except ServiceError:
                    continue
                return started
        pytest.fail("the service did not start")

    def run(self, line: str) -> str:
        command = self._command(line)
        ended = subprocess.run(
            command, cwd=self._home, env=self._environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, f"{line}\n{ended.stdout}\n{ended.stderr}"
        if command[0] == "curl":
            assert json.loads(ended.stdout).get("status", 200) == 200, f"{line}\n{ended.stdout}"
        return ended.stdout

    def _command(self, line: str) -> list[str]:
        command = shlex.split(line.replace("localhost:8000", f"localhost:{self._port}"))
        if command[0] == "rankone":
            command[:1] = [sys.executable, "-m", "rankone"]
        if command[3:4] and (command[3] in ("add", "search") or command[4:5] == ["rebuild"]):
            command += ["--url", f"http://127.0.0.1:{self._port}"]
        return command


@pytest.fixture
def shell(home: Path, port: int) -> Shell:
    return Shell(home, port)


@pytest.fixture
def service(shell: Shell) -> Iterator[subprocess.Popen[str]]:
    started = shell.start(BESIDE[0])
    yield started
    started.kill()
    started.wait(30)


def test_every_command_of_the_page_runs(shell: Shell, service: subprocess.Popen[str], home: Path) -> None:
    told = [shell.run(line) for line in BESIDE[1:]]
    printed = dict(zip(BESIDE[1:], told, strict=True))
    answers = [json.loads(text) for line, text in printed.items() if line.startswith("curl")]
    added, found, listed, alike, deleted, made, _ = answers
    assert added["ids"] == [item["id"] for item in listed["items"]] == ["moon-1"]
    assert [hit["id"].split("/")[1] for hit in found["results"][0]][:1] == ["moon"]
    assert len(alike["results"][0]) == 3
    assert (deleted, made["kind"]) == ({"deleted": 1}, "compact")
    index_commands = {line.split()[2]: text for line, text in printed.items() if line.startswith("rankone index")}
    assert "every row is whole" in index_commands["verify"]
    assert "20 items" in index_commands["backup"]
    assert "20 items in the index large" in index_commands["rebuild"]
    assert re.search(r"default +20 +exact +float16", index_commands["list"])
    for line in ALONE:
        ended = subprocess.run(
            shell._command(line), cwd=home, env=shell._environment, capture_output=True, text=True, check=False
        )
        assert (ended.returncode, "another process is using it" in ended.stderr) == (2, True), line
    service.send_signal(signal.SIGTERM)
    service.wait(30)
    restored, imported, checked = map(shell.run, ALONE)
    assert "20 items in the index tuesday" in restored
    assert "20 items added" in imported
    assert "recall@10 1.0000" in checked
