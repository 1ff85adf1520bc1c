"""What torch would run or unpickle out of a `.pt2` never reaches it."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch

from rankone.model.bundle import PROGRAM, Bundle
from rankone.model.engine import EngineError
from rankone.model.engine.export import check_archive

CONFIG, GRAPH, INPUTS = "data/weights/model_weights_config.json", "models/model.json", "data/sample_inputs/model.pt"


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.path),)


def rewritten(source: Path, target: Path, name: str, change: Callable[[bytes], bytes]) -> Path:
    """`source` with one entry changed, or added if there is none."""
    with ZipFile(source) as old, ZipFile(target, "w") as new:
        entries = {entry.filename: old.read(entry) for entry in old.infolist()}
        full = f"model/{name}"
        entries[full] = change(entries.get(full, b""))
        for entry, content in entries.items():
            new.writestr(entry, content)
    return target


def changed(key: str, value: Any) -> Callable[[bytes], bytes]:
    """Sets the first `key` at any depth of a JSON document."""

    def walk(tree: Any) -> bool:
        if isinstance(tree, dict) and key in tree:
            tree[key] = value
            return True
        branches = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
        return any(walk(branch) for branch in branches)

    def change(content: bytes) -> bytes:
        tree = json.loads(content)
        assert walk(tree)
        return json.dumps(tree).encode()

    return change


def test_our_own_exports_are_opened(bundle: Bundle) -> None:
    check_archive(bundle.file(PROGRAM))


def test_a_pickle_in_place_of_example_inputs_would_run_and_does_not(bundle: Bundle, tmp_path: Path) -> None:
    bomb = io.BytesIO()
    torch.save((Bomb(tmp_path / "ran"),), bomb)
    path = rewritten(bundle.file(PROGRAM), tmp_path / "model.pt2", INPUTS, lambda _: bomb.getvalue())
    with pytest.raises(EngineError, match="is not opened: data/sample_inputs/model.pt is a pickle"):
        check_archive(path)
    assert not (tmp_path / "ran").exists()
    torch.export.load(path)
    assert (tmp_path / "ran").exists(), "torch no longer unpickles: is the check still needed?"


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        (CONFIG, changed("use_pickle", True), "names pickled objects"),
        ("data/constants/opaque_obj_0", lambda _: b"pickle", "it holds data/constants/opaque_obj_0"),
        ("data/weights/model.pt", lambda _: b"pickle", "it holds data/weights/model.pt"),
        ("data/aotinductor/model/code.so", lambda _: b"code", "it holds data/aotinductor/model/code.so"),
        (GRAPH, changed("target", "torch.hub.load"), "its graph calls torch.hub.load"),
        (GRAPH, changed("target", "_operator.call"), "its graph calls _operator.call"),
        (GRAPH, changed("expr_str", "exec(chr(49))"), r"a shape in its graph is 'exec\(chr\(49\)\)'"),
        (GRAPH, changed("guards_code", ["L['x'] == 1"]), "its graph contains code"),
        (GRAPH, lambda content: content[:-5], "is not an archive of torch.export"),
    ],
)
def test_what_is_more_than_weights_and_plain_operators_is_not_opened(
    bundle: Bundle, tmp_path: Path, name: str, change: Callable[[bytes], bytes], reason: str
) -> None:
    path = rewritten(bundle.file(PROGRAM), tmp_path / "model.pt2", name, change)
    with pytest.raises(EngineError, match=reason):
        check_archive(path)


@pytest.mark.parametrize(
    "shape",
    ["8*Symbol('s34', positive=True, integer=True) + 1", "Mul(Integer(9), Symbol('s34', positive=True, integer=True))"],
)
def test_shapes_may_be_reckoned_with(bundle: Bundle, tmp_path: Path, shape: str) -> None:
    check_archive(rewritten(bundle.file(PROGRAM), tmp_path / "model.pt2", GRAPH, changed("expr_str", shape)))


def test_what_is_no_archive_says_so(bundle: Bundle, tmp_path: Path) -> None:
    path = Path(shutil.copy(bundle.path / "manifest.json", tmp_path / "model.pt2"))
    with pytest.raises(EngineError, match="is not an archive of torch.export"):
        check_archive(path)
