"""`rankone bench int8`: what a backbone in int8 gains and loses on this CPU, with learned filters.

The trunk of VGG16 is quantized as `rankone quantize` does it for a whole network; the poolings are in float32. Two rows leave
out its corrections, which shows what each is good for.

Measured: processor time beside ONNX Runtime in float32; whether the ten nearest textures stay the same, by whole and short
embeddings; accuracy on animals of a classifier that was fitted in float32.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch

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
from rankone.training.int8 import quantized
from rankone.training.metrics import retrieval_scores
from rankone.training.quantize import neighbours
from rankone.training.short import Examples, learn

SIDE: Final = 128
TIMED_SIDE: Final = 224
POOLINGS: Final = ("cbp-run", "cbp-run-mild", "sum")
LENGTH: Final = 128
_LEARNED, _MEASURED, _CROPS = 150, 100, 4
"""Textures that train the short embeddings, textures that are searched, and crops of each texture."""
_BATCH: Final = 8
_RIDGE: Final = 1e-2
_CORRECTIONS: Final[Mapping[str, Mapping[str, bool]]] = {
    "int8": {},
    "int8, ranges as they are": {"equalize": False},
    "int8, biases as they are": {"correct": False},
}

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
        paths = {name: home / f"{number}.onnx" for number, name in enumerate(("float32", *_CORRECTIONS))}
        onnx.save(exported, paths["float32"])
        for name, corrections in _CORRECTIONS.items():
            quantized(exported, calibration, calibration[::2], paths[name], **corrections)
        _speeds({name: paths[name] for name in ("float32", "int8")})
        features = {name: [_features(path, images) for images in (crops, train, test)] for name, path in paths.items()}
    for pooling in POOLINGS:
        _print_losses(pooling, features, (animals.train.labels, animals.test.labels))


class Trunk(torch.nn.Module):
    """The convolutions alone: images (n, 3, H, W), of any size, to (n, 512, h, w)."""

    def __init__(self, weights: str) -> None:
        super().__init__()
        layers = (layer for layer in build_backbone("vgg16", weights).modules() if not list(layer.children()))
        self.backbone = torch.nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> Any:
        return self.backbone(images)


def trunk(weights: str, images: Array) -> onnx.ModelProto:
    """`Trunk` as ONNX."""
    sizes = {0: torch.export.Dim("n", min=1), 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    program = torch.onnx.export(
        Trunk(weights).eval(), (torch.from_numpy(images),), dynamo=True, input_names=["images"], dynamic_shapes=(sizes,)
    )
    assert program is not None
    return program.model_proto


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
    columns = (
        "same 10",
        "same 10, short",
        "same nearest, short",
        "recall@1, short",
        "accuracy",
        "cosine: mean",
        "least",
    )
    rows = table(f"{name}, {SIDE} x {SIDE}", "", *columns)
    textures = np.repeat(np.arange(_LEARNED + _MEASURED), _CROPS)
    inside, outside = np.arange(_LEARNED * _CROPS), np.arange(_LEARNED * _CROPS, len(textures))
    base, train, _ = (_embedded(pooling, one) for one in features["float32"])
    reduction = learn(Examples(base[inside], inside, textures[inside], "textures")).reduction
    classify = _ridge(train, np.array(labels[0]))
    exact = base[outside]
    short_exact = shorten(reduction(exact), LENGTH)
    for variant, (crops, _, test) in features.items():
        found = _embedded(pooling, crops[outside])
        short = shorten(reduction(found), LENGTH)
        kept = (neighbours(exact, found), neighbours(short_exact, short))
        recall = retrieval_scores(short, textures[outside])["recall_at_1"].mean()
        right = classify(_embedded(pooling, test)) == np.array(labels[1])
        cosines = (found * exact).sum(axis=1)
        figures = (kept[0].same_ten, kept[1].same_ten, kept[1].same_first, recall, right.mean())
        rows.add_row(variant, *(f"{figure:.3f}" for figure in figures), f"{cosines.mean():.4f}", f"{cosines.min():.4f}")
    console.print(rows)


def _embedded(pooling: torch.nn.Module, features: Array) -> Array:
    with torch.inference_mode():
        found = [pooling(batch) for batch in torch.from_numpy(features).split(_BATCH)]
        return torch.nn.functional.normalize(torch.cat(found), dim=1).numpy()


def _ridge(rows: Array, labels: Array) -> Callable[[Array], Array]:
    """The classes of a linear classifier by least squares."""
    mean, targets = rows.mean(axis=0), np.eye(labels.max() + 1)[labels]
    gram = (rows - mean) @ (rows - mean).T
    share = np.linalg.solve(gram + _RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram)), targets - targets.mean(0))
    weights = (rows - mean).T @ share
    return lambda tested: ((tested - mean) @ weights + targets.mean(axis=0)).argmax(axis=1)
