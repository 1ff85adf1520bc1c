"""`rankone bench int8`: what a backbone in int8 gains and loses on this CPU, with learned filters.

The trunk of VGG16 is quantized by ONNX Runtime: weights by channel, activations to uint8 by their smallest and largest values.
The first and the last convolution stay in float32, and the poolings too. Channels may be equalized before: scaled down in one
layer and up again in the next, which changes nothing in float32 (Nagel et al., 2019).

Measured: processor time beside ONNX Runtime in float32; whether the ten nearest textures stay the same, by whole and short
embeddings; accuracy on animals of a classifier that was fitted in float32.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper
from onnxruntime import quantization

from benchmarks.quality.crops import crops_of
from benchmarks.quality.pictures import objects
from benchmarks.quality.sources import learned_filters
from benchmarks.timing import compare, console, faster, machine, print_table, table
from rankone.model.backbone import build_backbone
from rankone.model.catalogue import build
from rankone.model.engine.openvino import core
from rankone.model.preprocessing import Preprocessing, to_array
from rankone.model.reduction import shorten
from rankone.training.data.dataset import Split
from rankone.training.data.picture import pixels
from rankone.training.short import Examples, learn

SIDE: Final = 128
TIMED_SIDE: Final = 224
POOLINGS: Final = ("cbp-run", "cbp-run-mild", "sum")
LENGTH: Final = 128
NEAREST: Final = 10
_LEARNED, _MEASURED, _CROPS = 150, 100, 4
"""Textures that train the short embeddings, textures that are searched, and crops of each texture."""
_BATCH: Final = 8
_RIDGE: Final = 1e-2
_LARGEST: Final = 16.0
"""By which a channel is scaled at most."""

Array = npt.NDArray[Any]
Run = Callable[[Array], Array]


def main() -> None:
    """Prints the speeds, and a table for each pooling."""
    console.print(f"[bold]int8[/bold]: {machine()}")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        crops = np.stack([to_array(crop, Preprocessing(size=SIDE)) for crop in crops_of()])
        crops = crops[: (_LEARNED + _MEASURED) * _CROPS]
        animals = objects()
        train, test = (_images(split) for split in (animals.train, animals.test))
        calibration = np.concatenate([train[::4], crops[: _LEARNED * _CROPS : 10]])
        exported = trunk(learned_filters().as_posix(), crops[:2])
        models = {"float32": exported, "equalized": equalized(exported, calibration)}
        paths = {"float32": home / "float32.onnx"}
        onnx.save(exported, paths["float32"])
        for name, source in (("int8", "float32"), ("int8, equalized", "equalized")):
            paths[name] = quantized(models[source], calibration, home / f"{source}-int8.onnx")
        _speeds(paths)
        features = {name: [_features(path, images) for images in (crops, train, test)] for name, path in paths.items()}
    for pooling in POOLINGS:
        _print_losses(pooling, features, (animals.train.labels, animals.test.labels))


def trunk(weights: str, images: Array) -> onnx.ModelProto:
    """VGG16's convolutions as ONNX: images (n, 3, H, W), of any size, to (n, 512, h, w)."""
    layers = torch.nn.Sequential(*(m for m in build_backbone("vgg16", weights).modules() if not list(m.children())))
    sizes = {0: torch.export.Dim("n", min=1), 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    program = torch.onnx.export(
        layers.eval(), (torch.from_numpy(images),), dynamo=True, input_names=["images"], dynamic_shapes=(sizes,)
    )
    assert program is not None
    return program.model_proto


def equalized(model: onnx.ModelProto, images: Array, alpha: float = 0.5) -> onnx.ModelProto:
    """The same function, whose channels between two convolutions have more similar ranges.

    Channel c is divided by `most_c^alpha / weight_c^(1 - alpha)` before it is rounded, where `most_c` is its largest value on
    `images` and `weight_c` that of the next layer's weights; the next layer multiplies by it. ReLU and pooling let it pass.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    stored = {one.name: one for one in made.graph.initializer}
    convolutions = [node for node in made.graph.node if node.op_type == "Conv"]
    for before, after, most in zip(convolutions, convolutions[1:], _largest(model, images), strict=False):
        following = numpy_helper.to_array(stored[after.input[1]])
        reads = np.abs(following).max(axis=(0, 2, 3))
        scale = _floored(most) ** alpha / _floored(reads) ** (1 - alpha)
        scale = np.clip(scale / np.exp(np.log(scale).mean()), 1 / _LARGEST, _LARGEST).astype(np.float32)
        changed = {after.input[1]: following * scale[:, None, None]}
        for name in before.input[1:]:  # its weights, and its bias if there is one
            values = numpy_helper.to_array(stored[name])
            changed[name] = values / scale.reshape(-1, *[1] * (values.ndim - 1))
        for name, values in changed.items():
            stored[name].CopyFrom(numpy_helper.from_array(values, name))
    return made


def quantized(model: onnx.ModelProto, images: Array, path: Path) -> Path:
    """Writes the model with its convolutions in int8, but for the first and the last."""
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    source = path.with_suffix(".float32.onnx")
    onnx.save(model, source)
    quantization.quantize_static(
        source,
        path,
        _Images(images),
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        op_types_to_quantize=["Conv", "MaxPool", "Relu"],
        nodes_to_exclude=[convolutions[0], convolutions[-1]],
    )
    return path


class _Images(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Batches of images, once."""

    def __init__(self, images: Array) -> None:
        self._batches = iter([{"images": images[start : start + _BATCH]} for start in range(0, len(images), _BATCH)])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._batches, None)


def nearest(queries: Array, items: Array, count: int = NEAREST) -> Array:
    """The `count` nearest items (n, count) of each query, which is not its own neighbour."""
    scores = queries @ items.T
    np.fill_diagonal(scores, -np.inf)
    ranked: Array = np.argsort(-scores, axis=1)[:, :count]
    return ranked


def same(before: Array, after: Array) -> float:
    """The mean share of the neighbours before that are neighbours after, (n, k) each."""
    return float(np.mean([len(set(old) & set(new)) / len(old) for old, new in zip(before, after, strict=True)]))


def _largest(model: onnx.ModelProto, images: Array) -> list[Array]:
    """The largest value of each channel behind each ReLU but the last."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    names = [node.output[0] for node in model.graph.node if node.op_type == "Relu"][:-1]
    probe.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    session = onnxruntime.InferenceSession(probe.SerializeToString())
    found = [
        [values.max(axis=(0, 2, 3)) for values in session.run(names, {"images": images[start : start + _BATCH]})]
        for start in range(0, len(images), _BATCH)
    ]
    return [np.max(layer, axis=0) for layer in zip(*found, strict=True)]


def _floored(values: Array) -> Array:
    floored: Array = np.maximum(values.astype(np.float64), 1e-3 * values.max())
    return floored


def _by_openvino(path: Path, precision: str, threads: int) -> Run:
    config = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads}
    request = core().compile_model(core().read_model(path), "CPU", config).create_infer_request()
    return lambda images: np.array(request.infer({0: images})[0])


def _by_onnx(path: Path, threads: int) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options)
    return lambda images: np.asarray(session.run(None, {"images": images})[0])


def _speeds(paths: Mapping[str, Path]) -> None:
    threads = len(os.sched_getaffinity(0))
    runs = {f"ONNX Runtime, {name}": _by_onnx(path, threads) for name, path in paths.items()}
    runs |= {f"OpenVINO, {name}": _by_openvino(path, "f32", threads) for name, path in paths.items()}
    runs["OpenVINO, bfloat16"] = _by_openvino(paths["float32"], "bf16", threads)
    image = np.random.default_rng(0).normal(size=(1, 3, TIMED_SIDE, TIMED_SIDE)).astype(np.float32)
    calls = {name: (lambda run=run: run(image)) for name, run in runs.items()}
    timings = compare(calls, rounds=11, device="processor")
    title = f"trunk, {TIMED_SIDE} x {TIMED_SIDE}, {threads} threads, processor time"
    print_table(title, timings, "ONNX Runtime, float32", faster)


def _images(split: Split) -> Array:
    return np.stack([pixels(path, Preprocessing(size=SIDE)) for path in split.paths])


def _features(path: Path, images: Array) -> Array:
    """Local features, (n, locations, 512)."""
    run = _by_openvino(path, "f32", len(os.sched_getaffinity(0)))
    found = np.concatenate([run(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)])
    return np.ascontiguousarray(found.reshape(*found.shape[:2], -1).transpose(0, 2, 1))


def _print_losses(name: str, features: Mapping[str, list[Array]], labels: tuple[Sequence[int], Sequence[int]]) -> None:
    pooling = build(name).eval()
    rows = table(
        f"{name}, {SIDE} x {SIDE}",
        "",
        f"same {NEAREST}",
        f"same {NEAREST}, short",
        "recall@1, short",
        "accuracy",
        "cosine: mean",
        "least",
    )
    textures = np.repeat(np.arange(_LEARNED + _MEASURED), _CROPS)
    inside, outside = np.arange(_LEARNED * _CROPS), np.arange(_LEARNED * _CROPS, len(textures))
    base, train, _ = (_embedded(pooling, one) for one in features["float32"])
    reduction = learn(Examples(base[inside], inside, textures[inside], "textures")).reduction
    classify = _ridge(train, np.array(labels[0]))
    exact = base[outside]
    expected = [nearest(one, one) for one in (exact, shorten(reduction(exact), LENGTH))]
    for variant, (crops, _, test) in features.items():
        found = _embedded(pooling, crops[outside])
        short = shorten(reduction(found), LENGTH)
        neighbours = [nearest(found, found), nearest(short, short)]
        hits = textures[outside][neighbours[1][:, 0]] == textures[outside]
        right = classify(_embedded(pooling, test)) == np.array(labels[1])
        cosines = (found * exact).sum(axis=1)
        shares = [same(*pair) for pair in zip(expected, neighbours, strict=True)]
        figures = (*shares, hits.mean(), right.mean())
        rows.add_row(variant, *(f"{figure:.3f}" for figure in figures), f"{cosines.mean():.4f}", f"{cosines.min():.4f}")
    console.print(rows)


def _embedded(pooling: torch.nn.Module, features: Array) -> Array:
    def batches() -> Iterator[torch.Tensor]:
        for start in range(0, len(features), _BATCH):
            yield torch.nn.functional.normalize(pooling(torch.from_numpy(features[start : start + _BATCH])), dim=1)

    with torch.inference_mode():
        return torch.cat(list(batches())).numpy()


def _ridge(rows: Array, labels: Array) -> Callable[[Array], Array]:
    """The classes of a linear classifier by least squares."""
    mean, targets = rows.mean(axis=0), np.eye(labels.max() + 1)[labels]
    gram = (rows - mean) @ (rows - mean).T
    share = np.linalg.solve(gram + _RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram)), targets - targets.mean(0))
    weights = (rows - mean).T @ share
    return lambda tested: ((tested - mean) @ weights + targets.mean(axis=0)).argmax(axis=1)
