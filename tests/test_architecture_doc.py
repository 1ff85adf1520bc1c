"""docs/architecture.md: each of its three lists names files in the order in which they are called."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import numpy as np
import orjson
import pytest
import torch

from rankone.cli.train import export, train
from rankone.index import Indexes
from rankone.model.bundle import Bundle
from rankone.service.auth.keys import add_key
from rankone.service.observe.metrics import Metrics
from rankone.service.runtime import load
from rankone.service.settings import Settings
from rankone.training.data import DataSet
from tests.services import client_of, multipart, serving

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
WAYS = [found for part in PAGE.split("\n## ") if (found := re.findall(r"(?m)^ *(\d+) +(\S+\.py)", part))]
IN_THE_WORKER = {"service/inference/decode_worker.py", "model/preprocessing/decoder.py"}


class Calls:
    """Our files in the order in which this process calls their functions, in every thread started meanwhile."""

    def __init__(self) -> None:
        self.files: list[str] = []

    def __enter__(self) -> Self:
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """For a library that calls too many functions to listen to."""
        sys.setprofile(None)
        yield
        sys.setprofile(self._profile)

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and (file := ours(frame.f_code.co_filename)) and file not in self.files[-1:]:
            self.files.append(file)


@cache
def ours(filename: str) -> str | None:
    path = Path(filename).resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) and ".venv" not in path.parts else None


def check(way: list[tuple[str, str]], calls: list[str], elsewhere: Collection[str] = ()) -> None:
    """Fails at the first file of a way that is not called after the one before it."""
    position = 0
    for _, file in way:
        if file not in elsewhere:
            assert file in calls[position:], f"{file} is not called after the files before it"
            position = calls.index(file, position)


def test_each_way_has_at_most_sixteen_files_and_all_files_of_the_page_exist() -> None:
    assert len(WAYS) == 3
    for way in WAYS:
        assert [int(number) for number, _ in way] == list(range(1, len(way) + 1))
        assert len(way) <= 16
    named = set(re.findall(r"\w[\w/]*/\w+\.py", PAGE))
    assert {name for name in named if not (ROOT / name).is_file()} == set()
    assert len(PAGE.split()) <= 700


@pytest.fixture
def settings(tiny: Bundle, tmp_path: Path) -> Settings:
    return Settings(bundle=tiny.path, data=tmp_path / "indexes", keys=tmp_path / "keys.json", workers=1)


@pytest.mark.anyio
async def test_the_ways_of_a_request_and_of_an_item(
    settings: Settings, tiny: Bundle, images: list[bytes], tmp_path: Path
) -> None:
    key, _ = add_key(tmp_path / "keys.json", None, frozenset({"read", "write"}))
    indexes = Indexes(tmp_path / "loading")
    with Calls() as calls:
        runtime = await load(tiny, settings, Metrics(), indexes)
        try:
            async with serving(settings, runtime) as app, client_of(app) as http:
                http.headers["Authorization"] = f"Bearer {key}"
                calls.files.clear()
                assert (await http.post("/embed", files=multipart(images[:2]))).status_code == 200
                check(WAYS[0], calls.files, IN_THE_WORKER)
                calls.files.clear()
                url, items = "/indexes/default", orjson.dumps([{"id": "a", "metadata": {"n": 1}}])
                added = await http.post(f"{url}/items", files=multipart(images[:1]), data={"items": items.decode()})
                assert added.status_code == 201
                asked = {"vectors": [np.eye(1, tiny.manifest.dim)[0].tolist()], "filter": {"n": 1}}
                found = (await http.post(f"{url}/search", json=asked)).json()
                assert [hit["id"] for hit in found["results"][0]] == ["a"]
                check(WAYS[1], calls.files)
        finally:
            await runtime.close()
            indexes.close()


@pytest.mark.usefixtures("light_network", "_undrawn")
def test_the_way_of_a_training_image(photos: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, run, bundle = str(photos.train.paths[0].parents[2]), str(tmp_path / "run"), str(tmp_path / "bundle")
    small = ["--size", "64", "--phase1.epochs", "1", "--phase2.epochs", "1"]
    commands: list[tuple[Callable[[list[str]], None], list[str]]] = [
        (train, [data, run, "--recipe", "demo", *small]),
        (export, [run, data, bundle]),
    ]
    with Calls() as calls:
        for library, name in ((torch.onnx, "export"), (torch.export, "export"), (torch.jit, "trace")):
            monkeypatch.setattr(library, name, calls.paused()(getattr(library, name)))
        for command, arguments in commands:
            command(arguments)
    check(WAYS[2], calls.files)


def test_a_wrong_order_is_found() -> None:
    way = [("1", "a.py"), ("2", "b.py")]
    check(way, ["b.py", "a.py", "b.py"])
    with pytest.raises(AssertionError, match=r"b\.py is not called"):
        check(way, ["b.py", "a.py"])
