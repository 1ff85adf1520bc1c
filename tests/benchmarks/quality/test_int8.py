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

IMAGES = np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    torch.manual_seed(0)
    return int8.trunk("random", IMAGES[:2])


def outputs(model: onnx.ModelProto | Path) -> int8.Array:
    source = model if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source)
    return np.asarray(session.run(None, {"images": IMAGES})[0])


def test_the_trunk_is_the_backbone_of_any_size() -> None:
    torch.manual_seed(0)
    expected = build_backbone("vgg16", "random").eval()(torch.from_numpy(IMAGES)).detach().numpy()
    torch.manual_seed(0)
    found = outputs(int8.trunk("random", np.zeros((2, 3, 64, 48), np.float32)))
    assert np.allclose(found.reshape(4, 512, -1).transpose(0, 2, 1), expected, atol=1e-5)


def test_equalizing_changes_ranges_and_not_the_function(model: onnx.ModelProto) -> None:
    equal = int8.equalized(model, IMAGES)
    expected, found = outputs(model), outputs(equal)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    for before, after in zip(int8._largest(model, IMAGES), int8._largest(equal, IMAGES), strict=True):
        assert after[after > 0].std() / after.mean() < before[before > 0].std() / before.mean()


def test_all_convolutions_but_the_first_and_the_last_are_in_int8(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = int8.quantized(model, IMAGES, tmp_path / "int8.onnx")
    written = onnx.load(path)
    makers = {node.output[0]: node.op_type for node in written.graph.node}
    convolutions = [node for node in written.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 13
    assert [makers.get(node.input[1]) for node in convolutions] == [None, *["DequantizeLinear"] * 11, None]
    expected, found = outputs(model).ravel(), outputs(path).ravel()
    assert 0.9 < expected @ found / np.linalg.norm(expected) / np.linalg.norm(found) < 0.99999


def test_neighbours_are_counted() -> None:
    rows = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.2, 0.8]])
    found = int8.nearest(rows, rows, 2)
    assert found.tolist() == [[1, 3], [0, 3], [3, 1], [2, 1]]
    assert int8.same(found, found[:, ::-1]) == 1
    assert int8.same(found, np.array([[1, 2], [2, 3], [1, 3], [0, 1]])) == (0.5 + 0.5 + 1 + 0.5) / 4


def test_the_classifier_separates_what_can_be_separated() -> None:
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 8)
    rows = np.eye(3)[labels] + draw.normal(scale=0.05, size=(24, 3))
    assert int8._ridge(rows, labels)(np.eye(3)).tolist() == [0, 1, 2]
