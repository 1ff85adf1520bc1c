"""docs/client.md: every block of Python and every command, as it stands, before a real service."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rankone.client import AsyncClient, Client
from rankone.training.data import DataSet
from tests.services import Process, Start, start

__all__ = ["start"]

TEXT = (Path(__file__).parents[1] / "docs" / "client.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    found: list[str] = re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL)
    return found


@pytest.fixture
def service(start: Start, photos: DataSet, tmp_path: Path) -> Process:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "test").symlink_to(photos.test.paths[0].parents[1])
    process: Process = start()
    process.ready().close()
    return process


def test_every_block_and_command_runs(service: Process, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    printed = []
    for code in blocks("python"):
        command = [sys.executable, "-c", code.replace("http://127.0.0.1:8000", service.url)]
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        printed.append(ended.stdout)
    assert len(printed) == 2
    shown = re.search(r"error.errors\) +# (.*)", TEXT)
    assert shown is not None
    assert printed[0].splitlines()[-1] == shown[1]
    assert len(printed[1].splitlines()) == 16
    for line in blocks("console")[0].splitlines():
        command = [sys.executable, "-m", *shlex.split(line.removeprefix("$ ")), "--url", service.url]
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
    assert np.load(tmp_path / "embeddings.npy").shape == (16, 10_000)
    assert len([json.loads(line) for line in (tmp_path / "classes.jsonl").read_text().splitlines()]) == 16
    assert pq.read_table(tmp_path / "neighbours.parquet").num_rows == 16


def test_every_method_of_the_page_exists_and_none_is_left_out() -> None:
    public = {name for name in dir(Client) if not name.startswith("_")} - {"close", "url"}
    table = re.search(r"\| images \|.*?\n\n", TEXT, re.DOTALL)
    assert table is not None
    named = set(re.findall(r"`(\w+)`", table[0])) - {"k", "filter", "min_score", "exclude_self", "group_by", "_iter"}
    assert named | {"embed_iter", "classify_iter", "search_iter"} == public
    assert all(hasattr(AsyncClient, name) for name in public)
