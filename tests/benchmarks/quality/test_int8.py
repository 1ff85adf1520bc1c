"""What `rankone bench int8` measures is right: the trunk, what equalizing leaves as it was, and what stays in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from benchmarks.quality import int8
from rankone.model.backbone import build_backbone
from rankone.training.int8 import quantized

IMAGES = np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    torch.manual_seed(0)
    return int8.trunk("random", IMAGES[:2])


def outputs(model: onnx.ModelProto | Path) -> int8.Array:
    source = model if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source)
    return np.asarray(session.run(None, {"images": IMAGES})[0])


@pytest.mark.slow
def test_the_trunk_is_the_backbone_of_any_size() -> None:
    torch.manual_seed(0)
    expected = build_backbone("vgg16", "random").eval()(torch.from_numpy(IMAGES)).detach().numpy()
    torch.manual_seed(0)
    found = outputs(int8.trunk("random", np.zeros((2, 3, 64, 48), np.float32)))
    assert np.allclose(found.reshape(4, 512, -1).transpose(0, 2, 1), expected, atol=1e-5)


@pytest.mark.slow
def test_rows_leave_out_one_correction_each(model: onnx.ModelProto, tmp_path: Path) -> None:
    written = {}
    for name, corrections in int8._CORRECTIONS.items():
        quantized(model, IMAGES, IMAGES, tmp_path / "int8.onnx", **corrections)
        written[name] = outputs(tmp_path / "int8.onnx")
    first, *others = written.values()
    assert all(0.9 < cosine(first, other) < 0.99999 for other in others)
    assert cosine(first, outputs(model)) < 0.99999


def cosine(one: int8.Array, other: int8.Array) -> float:
    return float(one.ravel() @ other.ravel() / np.linalg.norm(one) / np.linalg.norm(other))


def test_the_classifier_separates_what_can_be_separated() -> None:
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 8)
    rows = np.eye(3)[labels] + draw.normal(scale=0.05, size=(24, 3))
    assert int8._ridge(rows, labels)(np.eye(3)).tolist() == [0, 1, 2]
