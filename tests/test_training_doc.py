"""docs/training.md: every command, as it stands, on a folder of photographs, in order."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rankone.client import Client, ServiceError
from rankone.training.data.folder import images_in
from tests.conftest import CLASSES

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def block(kind: str) -> str:
    found: list[str] = re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL)
    return found[0]


COMMANDS = [line.removeprefix("$ ") for line in block("console").splitlines()]


@pytest.fixture
def home(photos_root: Path, tmp_path: Path) -> Path:
    """A user's folder: four classes, eight photographs each, and the recipe of the page."""
    for name in CLASSES:
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for path in images_in(photos_root / "train" / name)[:8]:
            shutil.copy(path, tmp_path / "pictures" / name)
    (tmp_path / "small.yaml").write_text(block("yaml"), encoding="utf-8")
    return tmp_path


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def background() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.terminate()
        process.wait(30)


def test_the_page_has_ten_commands() -> None:
    assert len(COMMANDS) == 10


def test_every_command_of_the_page_runs(home: Path, port: int, background: list[subprocess.Popen[str]]) -> None:
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "RANKONE_PORT": str(port), "COLUMNS": "120"}
    printed = {}
    for line in COMMANDS:
        command = shlex.split(line.removesuffix(" &").replace("localhost:8000", f"localhost:{port}"))
        if command[0] == "rankone":
            command[:1] = [sys.executable, "-m", "rankone"]
        if command[3:4] and command[3] in ("classify", "add", "search"):
            command += ["--url", f"http://127.0.0.1:{port}"]
        if command[-1].endswith("classify?top_k=1"):  # the test images are drawn: the first there is
            command[command.index("@flowers/test/coins/00.png")] = f"@{images_in(home / 'flowers/test/coins')[0]}"
        if line.endswith(" &"):
            background.append(subprocess.Popen(command, cwd=home, env=environment, text=True))
            wait_until_ready(port)
            continue
        ended = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, f"{line}\n{ended.stdout}\n{ended.stderr}"
        printed[shlex.split(line)[1]] = ended.stdout
    assert json.loads((home / "runs/mine/dataset.json").read_text())["classes"] == list(CLASSES)  # the user's own
    assert json.loads(printed["-H"])["predictions"][0][0]["label"] in CLASSES
    assert len(printed["search"].splitlines()) == 8
    for name in ("report.html", "report.md", "report.json", "metrics.jsonl", "recipe.yaml", "dataset.json"):
        assert (home / "runs" / "mine" / name).exists()
    ours, served = (
        json.loads((home / path / "report.json").read_text()) for path in ("runs/mine", "bundles/mine-report")
    )
    assert served["top1"] == ours["top1"]


def wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + 60
    with Client(f"http://127.0.0.1:{port}") as client:
        while time.monotonic() < deadline:
            try:
                client.wait_until_ready(timeout_s=0.5)
            except ServiceError:
                continue
            return
    pytest.fail("the service did not start")
