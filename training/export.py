"""From a trained network to a bundle: ONNX, TorchScript and weights, each checked on real images before it may leave."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from rich.progress import Progress
from safetensors.torch import save_file
from torch import Tensor, nn

from model.bundle import (
    ONNX,
    TORCHSCRIPT,
    WEIGHTS,
    BackboneRecord,
    Bundle,
    DatasetRecord,
    Manifest,
    ParityRecord,
    PoolingRecord,
    TrainingRecord,
    seal,
    staged,
)
from model.errors import RankoneError
from model.network import Network
from training.pooling import Pooling
from training.recipe import Recipe

BATCH_SIZES: Final = (1, 2, 3, 7)
MIN_COSINE: Final = 0.99999
MAX_LOGIT_DIFFERENCE: Final = 1e-3
MIN_IMAGES: Final = max(BATCH_SIZES)

_LIBRARIES: Final = ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime-gpu", "numpy", "pillow", "rankone")
_FORBIDDEN_OPERATORS: Final = {
    "DFT": "ONNX Runtime has no CUDA kernel for it, and its CPU kernel loses four digits at length 10,000",
    "STFT": "it is a DFT",
    "ScatterND": "ONNX Runtime adds duplicate indices in parallel, and loses some",
    "RandomNormal": "an embedding must not be random",
    "RandomNormalLike": "an embedding must not be random",
    "RandomUniform": "an embedding must not be random",
    "RandomUniformLike": "an embedding must not be random",
    "Bernoulli": "an embedding must not be random",
    "Multinomial": "an embedding must not be random",
}

Outputs = tuple[npt.NDArray[np.floating], npt.NDArray[np.floating] | None]
Forward = Callable[[npt.NDArray[np.float32]], Outputs]


class ExportError(RankoneError, RuntimeError):
    """An exported form that differs from the network, or cannot be made; nothing was written."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What the manifest says beside what can be read off the network and its recipe."""

    name: str
    version: str
    classes: tuple[str, ...] | None
    metrics: Mapping[str, float]
    dataset: DatasetRecord | None
    training: TrainingRecord | None = None


def export(
    network: Network, recipe: Recipe, images: npt.NDArray[np.float32], path: Path, description: Description
) -> Bundle:
    """Writes the bundle `path`, or nothing.

    Args:
        network: on the CPU, as trained.
        recipe: what it was trained by; names its parts and its preprocessing.
        images: at least 7 real images, preprocessed, (n, 3, size, size): every exported form must agree on them.
        path: must not exist yet.
        description: the rest of the manifest.

    Raises:
        ExportError: an exported form does not agree with the network in float64, or its graph holds what it must not.
        BundleError: `path` exists.
    """
    if len(images) < MIN_IMAGES:
        raise ExportError(f"an export is checked on at least {MIN_IMAGES} images, got {len(images)}")
    check_exportable(recipe.pooling)
    network = network.cpu().float().eval()
    exported = network if network.classifier else _EmbeddingOnly(network).eval()
    example = torch.from_numpy(images[:2])
    with staged(path) as stage, Progress() as bar:
        task = bar.add_task("exporting and checking", total=5)
        save_file(network.state_dict(), stage / WEIGHTS)
        reference = _reference(network, images)
        bar.advance(task)
        parity = {}
        for name, write, load in (
            (ONNX, _write_onnx, onnx_forward),
            (TORCHSCRIPT, _write_torchscript, _torchscript_forward),
        ):
            write(exported, example, stage / name)
            bar.advance(task)
            parity[name] = check_parity(load(stage / name), reference, images)
            bar.advance(task)
        return seal(stage, _manifest(network, recipe, description, parity), path)


def check_graph(model: onnx.ModelProto) -> None:
    """Raises ExportError if the graph, or a function in it, holds an operator that is wrong, racing or random at inference."""
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for operator in sorted({node.op_type for node in nodes} & set(_FORBIDDEN_OPERATORS)):
        raise ExportError(f"the graph holds {operator}: {_FORBIDDEN_OPERATORS[operator]}")


def check_parity(forward: Forward, reference: Outputs, images: npt.NDArray[np.float32]) -> ParityRecord:
    """Compares `forward` with the reference's outputs for `images` at every batch size.

    Raises:
        ExportError: a cosine under 0.99999, logits that differ by more than a thousandth of the largest, or a NaN.
    """
    cosines, differences = [], [0.0]
    for size in BATCH_SIZES:
        for start in range(0, len(images) - size + 1, size):
            rows = slice(start, start + size)
            embedding, logits = forward(images[rows])
            cosines.append(_cosine(embedding, reference[0][rows]))
            differences.append(_difference(logits, None if reference[1] is None else reference[1][rows]))
    cosine, difference = float(np.min(cosines)), float(np.max(differences))
    if not (cosine >= MIN_COSINE and difference <= MAX_LOGIT_DIFFERENCE):
        raise ExportError(
            f"an exported form differs from the network: cosine {cosine:.7f} (at least {MIN_COSINE}), "
            f"logits by {difference:.1e} of the largest (at most {MAX_LOGIT_DIFFERENCE})"
        )
    return ParityRecord(
        min_cosine=cosine, max_logit_difference=difference, batch_sizes=BATCH_SIZES, num_images=len(images)
    )


def onnx_forward(path: Path) -> Forward:
    """The ONNX file as a function, on the CPU with ONNX Runtime's default threads."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def forward(images: npt.NDArray[np.float32]) -> Outputs:
        outputs = session.run(None, {"images": images})
        return outputs[0], outputs[1] if len(outputs) > 1 else None

    return forward


def _torchscript_forward(path: Path) -> Forward:
    with warnings.catch_warnings():
        _ignore_torchscript_warnings()
        module = torch.jit.load(path)

    @torch.inference_mode()
    def forward(images: npt.NDArray[np.float32]) -> Outputs:
        return _as_arrays(module(torch.from_numpy(images)))

    return forward


@torch.inference_mode()
def _reference(network: Network, images: npt.NDArray[np.float32]) -> Outputs:
    """The eager network's outputs in float64, image by image: what every exported form is held against."""
    network.double()
    try:
        rows = [_as_arrays(network(torch.from_numpy(image[None]).double())) for image in images]
    finally:
        network.float()
    logits = [row[1] for row in rows if row[1] is not None]
    return np.concatenate([row[0] for row in rows]), np.concatenate(logits) if logits else None


def _as_arrays(outputs: Tensor | tuple[Tensor, Tensor | None]) -> Outputs:
    embedding, logits = (outputs, None) if isinstance(outputs, Tensor) else outputs
    return embedding.numpy(), None if logits is None else logits.numpy()


def _cosine(found: npt.NDArray[np.floating], expected: npt.NDArray[np.floating]) -> float:
    """The lowest cosine of the rows; two zero rows agree."""
    lengths = np.linalg.norm(found.astype(np.float64), axis=1) * np.linalg.norm(expected, axis=1)
    both_zero = ~found.any(1) & ~expected.any(1)
    products = (found.astype(np.float64) * expected).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.where(both_zero, 1.0, products / lengths).min())


def check_exportable(pooling: Pooling) -> None:
    """Raises ExportError where no graph can hold the pooling, naming what to train instead."""
    parts = pooling.composition
    if not parts.needs_eigendecomposition:
        return
    named = f"{pooling.sibling}, or " if pooling.sibling else ""
    raise ExportError(
        f"{pooling.name} needs an eigendecomposition, which no exported graph can hold; train {named}"
        f"the same parts with normalization newton-schulz in place of {parts.normalization.name}, and export that"
    )


class _EmbeddingOnly(nn.Module):
    """A network without classes, with one output: neither format can return None."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.embed(images)


def _difference(found: npt.NDArray[np.floating] | None, expected: npt.NDArray[np.floating] | None) -> float:
    """The largest difference of logits, relative to the largest logit (or 1); infinite where only one side has any."""
    if found is None or expected is None:
        return 0.0 if found is expected else np.inf
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


@torch.no_grad()
def _write_onnx(network: nn.Module, example: Tensor, path: Path) -> None:
    names = ["embedding"] if isinstance(network, _EmbeddingOnly) else ["embedding", "logits"]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program: Any = torch.onnx.export(
        network,
        (example,),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["images"],
        output_names=names,
        verbose=False,
    )
    check_graph(program.model_proto)
    program.save(path)


@torch.no_grad()
def _write_torchscript(network: nn.Module, example: Tensor, path: Path) -> None:
    with warnings.catch_warnings():
        _ignore_torchscript_warnings()
        traced = torch.jit.trace(network, example, check_trace=False, strict=False)
        traced.save(path)


def _ignore_torchscript_warnings() -> None:
    """Deprecated since torch 2.15, and asked for; and what a trace does not follow is our checks of shapes."""
    warnings.filterwarnings("ignore", message=r"`torch\.jit", category=FutureWarning)
    warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]


def _manifest(network: Network, recipe: Recipe, description: Description, parity: dict[str, ParityRecord]) -> Manifest:
    parts = recipe.pooling.composition
    return Manifest(
        name=description.name,
        version=description.version,
        created=datetime.now(UTC),
        classes=description.classes,
        dim=network.pooling.out_dim,
        pooling=PoolingRecord(system=recipe.pooling.name, options=parts.options, parts=parts.describe()),
        backbone=BackboneRecord(name=recipe.backbone, weights=recipe.weights),
        preprocessing=recipe.preprocessing,
        metrics=dict(description.metrics),
        recipe=recipe.model_dump(mode="json"),
        dataset=description.dataset,
        training=description.training,
        libraries=library_versions(),
        parity=parity,
    )


def library_versions() -> dict[str, str]:
    """The versions of what decides the numbers."""
    return {name: version(name) for name in _LIBRARIES}


def spread(total: int, count: int) -> list[int]:
    """`count` of `total` indices, evenly over all of them, so that an export is checked on every sort of image."""
    return [round(i) for i in np.linspace(0, total - 1, min(count, total))]
