"""A network in int8: what stays in float32, what equalizing leaves as it was, and what its biases correct."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from rankone.training.forms import ExportError
from rankone.training.int8 import _by_image, _pairs, _with_own_biases, convolutions, equalized, quantized

Array = npt.NDArray[np.float32]

IMAGES: Array = np.random.default_rng(0).normal(size=(12, 3, 16, 16)).astype(np.float32)


class Residual(nn.Module):
    """Two convolutions beside a way past them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(images + self.second(torch.relu(self.first(images))))


class Body(nn.Module):
    """A backbone, and a head with a convolution of its own, which is not the backbone's."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.backbone = nn.Sequential(*layers)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.head(self.backbone(images)).mean(dim=(2, 3)),)


def exported(*layers: nn.Module) -> onnx.ModelProto:
    torch.manual_seed(0)
    body = Body(*layers).eval()
    program = torch.onnx.export(
        body,
        (torch.from_numpy(IMAGES[:2]),),
        dynamo=True,
        input_names=["images"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert program is not None
    return program.model_proto


def conv(inside: int, outside: int, groups: int = 1) -> nn.Conv2d:
    """With channels of very different ranges, as trained layers have."""
    layer = nn.Conv2d(inside, outside, 3, padding=1, groups=groups)
    with torch.no_grad():
        layer.weight *= torch.logspace(-1, 1, outside)[:, None, None, None]
    return layer


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    torch.manual_seed(0)
    chain = (conv(3, 6), nn.ReLU(), conv(6, 6), nn.ReLU(), nn.MaxPool2d(2), conv(6, 6), nn.ReLU())
    grouped = (conv(6, 6), nn.ReLU(), conv(6, 6, groups=6), nn.ReLU(), conv(6, 6), nn.ReLU())
    return exported(*chain, Residual(), *grouped)


def outputs(model: onnx.ModelProto | Path) -> Array:
    source = model if isinstance(model, Path) else model.SerializeToString()
    return np.asarray(onnxruntime.InferenceSession(source).run(None, {"images": IMAGES})[0])


def test_the_convolutions_are_those_of_the_backbone(model: onnx.ModelProto) -> None:
    assert len([node for node in model.graph.node if node.op_type == "Conv"]) == 9
    assert len(convolutions(model)) == 8


def test_only_layers_that_one_convolution_reads_are_scaled(model: onnx.ModelProto) -> None:
    """Not what goes past others, and not what a grouped convolution reads."""
    layers = convolutions(model)
    numbers = {node.name: number for number, node in enumerate(layers)}
    found = [(numbers[before.name], numbers[after.name]) for before, after in _pairs(model, layers)]
    assert found == [(0, 1), (1, 2), (3, 4), (6, 7)]


def test_equalizing_changes_ranges_and_not_the_function(model: onnx.ModelProto) -> None:
    equal = equalized(_with_own_biases(model), IMAGES)
    expected, found = outputs(model), outputs(equal)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    names = [after.input[0] for _, after in _pairs(model, convolutions(model))]
    before, after = (_by_image(one, names, "ReduceMax", IMAGES) for one in (model, equal))
    for wide, narrow in zip(before, after, strict=True):
        tops = [rows.max(axis=0) for rows in (narrow, wide)]
        assert tops[0].std() / tops[0].mean() < 0.8 * tops[1].std() / tops[1].mean()


def test_all_convolutions_but_the_first_and_the_last_are_in_int8(model: onnx.ModelProto, tmp_path: Path) -> None:
    quantized(model, IMAGES, IMAGES, tmp_path / "int8.onnx")
    written = onnx.load(tmp_path / "int8.onnx")
    makers = {node.output[0]: node.op_type for node in written.graph.node}
    weights = [makers.get(node.input[1]) for node in written.graph.node if node.op_type == "Conv"]
    assert weights == [None, *["DequantizeLinear"] * 6, None, None]
    pools = [node for node in written.graph.node if node.op_type == "MaxPool"]
    assert [makers[node.input[0]] for node in pools] == ["DequantizeLinear"]  # between layers in int8, it is in int8
    expected, found = outputs(model).ravel(), outputs(tmp_path / "int8.onnx").ravel()
    assert 0.99 < expected @ found / np.linalg.norm(expected) / np.linalg.norm(found) < 0.9999999


def test_the_means_of_all_layers_are_those_in_float32(model: onnx.ModelProto, tmp_path: Path) -> None:
    """To half a step of the biases, and what int8 itself leaves to later layers."""
    quantized(model, IMAGES, IMAGES, tmp_path / "int8.onnx")
    written, exact = onnx.load(tmp_path / "int8.onnx"), equalized(_with_own_biases(model), IMAGES)
    inner = [node.name for node in convolutions(model)[1:-1]]
    means = []
    for graph in (exact, written):
        names = [node.output[0] for node in graph.graph.node if node.name in inner]
        means.append([rows.mean(axis=0) for rows in _by_image(graph, names, "ReduceMean", IMAGES)])
    for expected, found in zip(*means, strict=True):
        assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()


def test_a_backbone_without_inner_convolutions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="fewer than three convolutions"):
        quantized(exported(conv(3, 6), nn.ReLU(), conv(6, 6)), IMAGES, IMAGES, tmp_path / "int8.onnx")
    assert not list(tmp_path.iterdir())
