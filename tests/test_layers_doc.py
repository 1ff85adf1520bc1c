"""docs/layers.md: every block, as it stands, in order."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import rankone.layers
from tests.pages import ROOT, blocks

BLOCKS = blocks("docs/layers.md", "python")


def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # the graph is captured as by default, and then run as it is: to compile it would take minutes
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(block, names)  # noqa: S102
    session = onnxruntime.InferenceSession("resnet.onnx", providers=["CPUExecutionProvider"])
    images = torch.rand(3, 3, 64, 64)
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        assert np.allclose(found, names["resnet"](images).numpy(), atol=1e-4)


def test_the_first_block_has_ten_lines() -> None:
    assert len([line for line in BLOCKS[0].splitlines() if line]) <= 10


def test_every_layer_is_exported_and_its_cost_is_told() -> None:
    text = (ROOT / "docs" / "results" / "model.md").read_text(encoding="utf-8")
    costs = text.partition("## What a layer costs")[2].partition("\n## ")[0]
    named = set(re.findall(r"\| `(\w+)`", costs))
    assert len(named) == 6
    assert named <= set(rankone.layers.__all__) <= set(dir(rankone.layers))


def test_torch_is_all_that_the_layers_need() -> None:
    code = "import sys, rankone.layers; print(sorted({'torchvision', 'PIL', 'onnx', 'safetensors', 'yaml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_map_is_what_the_helper_takes() -> None:
    grid = torch.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2)
    rows = rankone.layers.local_features(grid)
    assert rows.shape == (2, 4, 3)
    assert torch.equal(rows[1, 2], grid[1, :, 1, 0])
    with pytest.raises(ValueError, match=r"a map must be \(batch, channels, height, width\), got shape \(2, 3, 4\)"):
        rankone.layers.local_features(torch.rand(2, 3, 4))
