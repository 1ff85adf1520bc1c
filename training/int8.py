"""The ONNX graph of a network whose backbone computes in int8.

ONNX Runtime's quantizer rewrites the convolutions: weights in int8 with a scale for each output channel, activations in
uint8 with a scale for each tensor, from their smallest and largest values on calibration images. The first and the last
convolution of the backbone stay in float32, and so does all that is behind it: RUN amplifies small errors.

Two corrections of Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019, here with
measured activations:

- Channels of a layer that is read by one convolution only are scaled to more similar ranges, and scaled back by that
  convolution's weights. In float32 this changes nothing.
- Rounding moves the mean of each channel. The layers' biases are corrected in their order, so that all means are those in
  float32.

`rankone bench int8` measures what each is good for. Shapes: images (n, 3, size, size), preprocessed.
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnxruntime import quantization
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from rankone.model.engine.base import Images
from rankone.model.engine.onnx import session_options
from rankone.training.forms import ExportError

_BACKBONE: Final = ".backbone."
"""In the names of the weights of the backbone, and of no others."""
_PASSING: Final = frozenset({"Relu", "MaxPool", "AveragePool"})
"""Operators f with f(s x) = s f(x) for each channel and s > 0."""
_BATCH: Final = 4
_ALPHA: Final = 0.5
"""Equal shares of a channel's range are taken from its activations and given to the weights that read it."""
_LARGEST: Final = 16.0
"""By which a channel is scaled at most."""

Array = npt.NDArray[Any]


def quantized(
    model: onnx.ModelProto,
    images: Images,
    few: Images,
    path: Path,
    *,
    equalize: bool = True,
    correct: bool = True,
) -> None:
    """Writes the network in int8.

    Args:
        model: the network in float32, with an input `images`.
        images: on which ranges are measured and channels equalized. With fewer, unseen images leave the ranges more often.
        few: on which biases are corrected, by a pass for each layer.
        path: of the file to write.
        equalize: False leaves the ranges of channels as they are.
        correct: False leaves the biases as they are.

    Raises:
        ExportError: the backbone has fewer than three convolutions.
    """
    inner = [node.name for node in convolutions(model)[1:-1]]
    if not inner:
        raise ExportError(
            "the backbone has fewer than three convolutions, and only those between its first and its last can be in int8"
        )
    source = _with_own_biases(model)
    if equalize:
        source = equalized(source, images)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "float32.onnx"
        add_pre_process_metadata(source)  # it is optimized as it was exported; without this, the quantizer warns
        onnx.save(source, file)
        quantization.quantize_static(
            file,
            path,
            _Reader(images),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            nodes_to_quantize=[*inner, *_following(source, inner)],
        )
    if correct:
        onnx.save(_corrected(source, onnx.load(path), inner, few), path)


def convolutions(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Those of the backbone, in the order in which they run."""
    return [node for node in model.graph.node if node.op_type == "Conv" and _BACKBONE in f".{node.input[1]}"]


def equalized(model: onnx.ModelProto, images: Images) -> onnx.ModelProto:
    """The same function, with channels whose ranges are more similar. No two convolutions may share weights or biases.

    Channel c is divided by `most_c^alpha / weight_c^(1 - alpha)`, where `most_c` is its largest value on `images` and
    `weight_c` that of the weights that read it.
    """
    made = copy.deepcopy(model)
    stored = {one.name: one for one in made.graph.initializer}
    pairs = _pairs(made, convolutions(made))
    read = _by_image(model, [after.input[0] for _, after in pairs], "ReduceMax", images)  # none is negative
    for (before, after), found in zip(pairs, read, strict=True):
        reading = numpy_helper.to_array(stored[after.input[1]])
        scale = _floored(found.max(axis=0)) ** _ALPHA / _floored(np.abs(reading).max(axis=(0, 2, 3))) ** (1 - _ALPHA)
        scale = np.clip(scale / np.exp(np.log(scale).mean()), 1 / _LARGEST, _LARGEST).astype(np.float32)
        _replace(stored[after.input[1]], reading * scale[:, None, None])
        for name in before.input[1:]:  # its weights and its bias
            values = numpy_helper.to_array(stored[name])
            _replace(stored[name], values / scale.reshape(-1, *[1] * (values.ndim - 1)))
    return made


def _corrected(
    exact: onnx.ModelProto, in_int8: onnx.ModelProto, names: Sequence[str], images: Images
) -> onnx.ModelProto:
    """`in_int8`, where the mean output of each of these convolutions is that of `exact`."""
    by_name = {node.name: node for node in exact.graph.node}
    expected = _means(exact, [by_name[name].output[0] for name in names], images)
    layers = {node.name: node for node in in_int8.graph.node}
    makers = {node.output[0]: node for node in in_int8.graph.node}
    stored = {one.name: one for one in in_int8.graph.initializer}
    for name, mean in zip(names, expected, strict=True):
        (found,) = _means(in_int8, [layers[name].output[0]], images)
        bias = makers[layers[name].input[2]]  # a DequantizeLinear: int32, scale, zero point 0
        steps = np.rint((mean - found) / numpy_helper.to_array(stored[bias.input[1]]))
        values = numpy_helper.to_array(stored[bias.input[0]])
        _replace(stored[bias.input[0]], (values + steps).astype(values.dtype))
    return in_int8


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Batches of images, once."""

    def __init__(self, images: Images) -> None:
        self._batches = ({"images": batch} for batch in _batches(images))

    def get_next(self) -> dict[str, Array] | None:
        return next(self._batches, None)


def _batches(images: Images) -> Iterator[Images]:
    for start in range(0, len(images), _BATCH):
        yield images[start : start + _BATCH]


def _with_own_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which each convolution of the backbone has a bias of its own: exporters share equal ones and omit zeros."""
    made = copy.deepcopy(model)
    stored = {one.name: one for one in made.graph.initializer}
    for node in convolutions(made):
        name = f"{node.input[1]}.own_bias"
        channels = stored[node.input[1]].dims[0]
        values = numpy_helper.to_array(stored[node.input[2]]) if len(node.input) > 2 else np.zeros(channels, np.float32)
        made.graph.initializer.append(numpy_helper.from_array(values, name))
        node.input[:] = [*node.input[:2], name]
    read = {name for node in made.graph.node for name in node.input}
    for one in [one for one in made.graph.initializer if one.name not in read]:
        made.graph.initializer.remove(one)
    return made


def _pairs(model: onnx.ModelProto, layers: Sequence[onnx.NodeProto]) -> list[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """Convolutions of which the second alone reads the first, behind a ReLU and other operators that pass a scale on."""
    readers = defaultdict[str, list[onnx.NodeProto]](list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    outputs, names, found = {output.name for output in model.graph.output}, {node.name for node in layers}, []
    for before in layers:
        chain = [before]
        while chain[-1] is before or chain[-1].op_type in _PASSING:
            following = readers[chain[-1].output[0]]
            if len(following) != 1 or chain[-1].output[0] in outputs:
                break
            chain += following
        after, is_grouped = chain[-1], any(one.name == "group" and one.i > 1 for one in chain[-1].attribute)
        if after is not before and after.name in names and chain[1].op_type == "Relu" and not is_grouped:
            found.append((before, after))
    return found


def _following(model: onnx.ModelProto, names: Sequence[str]) -> list[str]:
    """The ReLUs and poolings right behind these convolutions: they compute in int8 too, or run with them as one."""
    values = {node.output[0] for node in model.graph.node if node.name in names}
    found = []
    for node in model.graph.node:
        if node.op_type in ("Relu", "MaxPool") and node.input[0] in values:
            values.add(node.output[0])
            found.append(node.name)
    return found


def _means(model: onnx.ModelProto, names: Sequence[str], images: Images) -> list[Array]:
    """The mean of each channel of these values."""
    return [found.mean(axis=0, dtype=np.float64) for found in _by_image(model, names, "ReduceMean", images)]


def _by_image(model: onnx.ModelProto, names: Sequence[str], operator: str, images: Images) -> list[Array]:
    """Values inside the graph, (n, channels, h, w), reduced by an operator of ONNX to (n, channels) each."""
    if not names:
        return []
    probe = copy.deepcopy(model)
    probe.graph.initializer.append(numpy_helper.from_array(np.array([2, 3]), "rankone.axes"))
    results = [f"rankone.{name}" for name in names]
    for name, result in zip(names, results, strict=True):
        probe.graph.node.append(helper.make_node(operator, [name, "rankone.axes"], [result], keepdims=0))
        probe.graph.output.append(helper.make_tensor_value_info(result, onnx.TensorProto.FLOAT, None))
    options = session_options(len(os.sched_getaffinity(0)))
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = [session.run(results, {"images": batch}) for batch in _batches(images)]
    return [np.concatenate(rows) for rows in zip(*found, strict=True)]


def _replace(stored: onnx.TensorProto, values: Array) -> None:
    stored.CopyFrom(numpy_helper.from_array(values, stored.name))


def _floored(values: Array) -> Array:
    """Channels that are always zero are not scaled to infinity."""
    floored: Array = np.maximum(values.astype(np.float64), 1e-3 * values.max())
    return floored
