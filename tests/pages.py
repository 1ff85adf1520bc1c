"""Pages of documentation: their blocks of code, and a shell that runs their commands as they are printed."""

from __future__ import annotations

import io
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from PIL import Image

from rankone.__main__ import run
from rankone.client import Client, ServiceError
from tests.conftest import CLASSES

ROOT = Path(__file__).parents[1]
FLOWERS = dict(zip(("daisy", "rose", "tulip", "violet"), CLASSES, strict=True))
"""The classes that the pages speak of, and the photographs that stand for them."""

_NEEDS_URL = re.compile(r"rankone (embed|classify|add|search|explain|index create|index rebuild) ")


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(page: str) -> list[list[str]]:
    """The commands of each console block."""
    return [re.findall(r"^\$ (.*)$", block, re.MULTILINE) for block in blocks(page, "console")]


def write_flowers(photos: Path, folder: Path, count: int) -> None:
    """Copies `count` photographs of each class into `folder`/<flower>, as 00.jpg, 01.jpg …"""
    for flower, name in FLOWERS.items():
        (folder / flower).mkdir(parents=True)
        for number, path in enumerate(sorted((photos / name).glob("*.png"))[:count]):
            Image.open(path).save(folder / flower / f"{number:02}.jpg", quality=95)


class Shell:
    """Runs commands in a folder. Those for the service on port 8000 go to a free port instead.

    With `here`, those of rankone run in this process, which has imported what they need; the service never does.
    """

    def __init__(self, folder: Path, *, here: bool = False) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.folder, self.url, self._here = folder, f"http://127.0.0.1:{self._port}", here
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), "RANKONE_PORT": str(self._port), "COLUMNS": "120"}

    @contextmanager
    def serving(self, line: str) -> Iterator[subprocess.Popen[bytes]]:
        """Runs `rankone serve … &` while the block runs, which starts when the service is ready."""
        process = subprocess.Popen(self._words(line.removesuffix("&")), cwd=self.folder, env=self._environment)
        try:
            self._wait_until_ready(process)
            yield process
        finally:
            process.kill()
            process.wait()

    def run(self, line: str) -> str:
        """What the command prints; the test fails if the command does."""
        ended = self.attempt(line)
        assert ended.returncode == 0, f"{line}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout

    def attempt(self, line: str) -> subprocess.CompletedProcess[str]:
        if self._here and line.startswith("rankone "):
            return self._run_here(self._words(line)[3:])
        return subprocess.run(
            self._words(line), cwd=self.folder, env=self._environment, capture_output=True, text=True, check=False
        )

    def _run_here(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        with chdir(self.folder), redirect_stdout(printed), redirect_stderr(io.StringIO()) as errors:
            before = signal.getsignal(signal.SIGTERM)  # which the demo takes
            try:
                status = run(words[0], words[1:])
            finally:
                signal.signal(signal.SIGTERM, before)
        printed.seek(0)
        return subprocess.CompletedProcess(words, status, printed.read(), errors.getvalue())

    def _words(self, line: str) -> list[str]:
        line = line.replace("localhost:8000", f"127.0.0.1:{self._port}")
        if line.startswith("curl "):
            return ["sh", "-c", line.replace("curl", "curl --silent --show-error", 1)]
        words = shlex.split(line)
        assert words[0] == "rankone", line
        url = ["--url", self.url] if _NEEDS_URL.match(line) and "--url" not in words else []
        return [sys.executable, "-m", *words, *url]

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 60
        with Client(self.url) as client:
            while time.monotonic() < deadline and process.poll() is None:
                try:
                    client.wait_until_ready(timeout_s=0.5)
                except ServiceError:
                    continue
                return
        pytest.fail("the service did not start")
