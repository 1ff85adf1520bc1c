"""The forms that a network is exported in: how each is written, the engine that runs it, and how it is checked.

The check compares it with the network in float64, on real images and at several batch sizes.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from rankone.model.bundle import ONNX, PROGRAM, TORCHSCRIPT, Manifest, ParityRecord
from rankone.model.engine import Engine, Outputs
from rankone.model.engine.base import Images, Options
from rankone.model.engine.check import largest_difference, lowest_cosine
from rankone.model.engine.export import export_engine
from rankone.model.engine.onnx import OnnxEngine
from rankone.model.engine.torch_engine import torchscript_engine
from rankone.model.errors import RankoneError
from rankone.model.network import Network

BATCH_SIZES: Final = (1, 2, 3, 7)
MIN_COSINE: Final = 0.99999
MAX_LOGIT_DIFFERENCE: Final = 1e-3
MIN_IMAGES: Final = max(BATCH_SIZES)

EngineRun = Callable[..., Outputs]
"""An engine's `run`."""

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


class ExportError(RankoneError, RuntimeError):
    """A form cannot be exported, or differs from the network; nothing was written."""


class Exported(nn.Module):
    """A network with the outputs that it has, as a tuple in the order of `Manifest.outputs`: no form can return None.

    With `features` the last one is the local features, for evidence. They are there anyway: to give them out costs nothing.
    """

    def __init__(self, network: Network, *, features: bool) -> None:
        super().__init__()
        self.network = network
        self.features = features

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network.outputs(images, features=self.features).values())


class Captured:
    """A module as every form is written from it: recorded once, on two example images, for batches of any size."""

    def __init__(self, module: nn.Module, example: Tensor, names: Sequence[str]) -> None:
        self.module, self.example, self.names = module, example, list(names)
        with torch.no_grad():
            self.program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))


@dataclass(frozen=True)
class ExportForm:
    """How a form is written and run."""

    write: Callable[[Captured, Path], None]
    open: Callable[[Path, Options, Manifest], Engine]
    """The engine for that file."""

    def load(self, path: Path, manifest: Manifest) -> EngineRun:
        """What runs the file as the service does, on the CPU in float32, with torch's number of threads."""
        return self.open(path, Options(device="cpu", threads=torch.get_num_threads()), manifest).run


def check_graph(model: onnx.ModelProto) -> None:
    """Raises ExportError if the graph, or a function in it, contains an operator that is imprecise, racing or random."""
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for operator in sorted({node.op_type for node in nodes if not _assigns(node)} & set(_FORBIDDEN_OPERATORS)):
        raise ExportError(f"the graph holds {operator}: {_FORBIDDEN_OPERATORS[operator]}")


def _assigns(node: onnx.NodeProto) -> bool:
    """Whether a ScatterND writes a slice, as the mask of shifted windows does: nothing is added, and no index comes twice."""
    reductions = {attribute.s for attribute in node.attribute if attribute.name == "reduction"}
    return node.op_type == "ScatterND" and reductions <= {b"none"}


@torch.no_grad()
def _write_onnx(captured: Captured, path: Path) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    graph: Any = torch.onnx.export(
        captured.program,
        dynamo=True,
        dynamic_shapes=({0: "batch"},),  # the name in the graph
        input_names=["images"],
        output_names=captured.names,
        verbose=False,
    )
    check_graph(graph.model_proto)
    graph.save(path)


@torch.no_grad()
def _write_torchscript(captured: Captured, path: Path) -> None:
    """A trace stores, as constants of each convolution, whether it may use cuDNN and TF32: later settings have no effect."""
    with warnings.catch_warnings(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        warnings.filterwarnings("ignore", message=r"`torch\.jit", category=FutureWarning)  # deprecated since torch 2.15
        # our checks of shapes, which the trace leaves out
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        traced = torch.jit.trace(captured.module, captured.example, check_trace=False, strict=False)
        traced.save(path)


def _write_program(captured: Captured, path: Path) -> None:
    """Leaves out the example inputs, which the archive would hold as a pickle."""
    captured.program.example_inputs = None
    torch.export.save(captured.program, path)


FORMS: Final[Mapping[str, ExportForm]] = {
    ONNX: ExportForm(_write_onnx, lambda path, options, _: OnnxEngine(path, options)),
    TORCHSCRIPT: ExportForm(_write_torchscript, torchscript_engine),
    PROGRAM: ExportForm(_write_program, export_engine),
}
"""By the name of the file in the bundle."""


def check_parity(run: EngineRun, reference: Outputs, images: Images) -> ParityRecord:
    """Compares an engine's outputs with the reference for `images`, (n, 3, size, size), at every batch size.

    Raises:
        ExportError: a cosine under 0.99999, logits that differ by more than a thousandth of the largest, or a NaN.
    """
    cosines, shorts, differences = list[float](), list[float](), [0.0]
    wants_features = reference.features is not None
    for size in BATCH_SIZES:
        for start in range(0, len(images) - size + 1, size):
            rows = slice(start, start + size)
            found = run(images[rows], features=True) if wants_features else run(images[rows])
            expected = reference.at(rows)
            cosines += _cosines(found.embedding, expected.embedding) + _cosines(found.features, expected.features)
            shorts += _cosines(found.short, expected.short)
            differences.append(largest_difference(found.logits, expected.logits))
    cosine, difference = float(np.min(cosines)), float(np.max(differences))
    short = float(np.min(shorts)) if shorts else None
    if not (cosine >= MIN_COSINE and difference <= MAX_LOGIT_DIFFERENCE and (short is None or short >= MIN_COSINE)):
        of_short = "" if short is None else f", of short embeddings {short:.7f}"
        raise ExportError(
            f"an exported form differs from the network: cosine {cosine:.7f}{of_short} (at least {MIN_COSINE}), "
            f"logits by {difference:.1e} of the largest (at most {MAX_LOGIT_DIFFERENCE})"
        )
    return ParityRecord(
        min_cosine=cosine,
        max_logit_difference=difference,
        min_short_cosine=short,
        batch_sizes=BATCH_SIZES,
        num_images=len(images),
    )


def _cosines(found: Images | None, expected: Images | None) -> list[float]:
    """The lowest cosine of one output: none if network and form lack it, NaN if only one does."""
    if found is None or expected is None:
        return [] if found is expected else [math.nan]
    return [lowest_cosine(found.reshape(len(found), -1), expected.reshape(len(expected), -1))]


@torch.no_grad()  # in inference mode, the weights that come back from float64 could not be trained any more
def reference_of(network: Network, images: Images, *, features: bool = False) -> Outputs:
    """The eager network's outputs, computed in float64 image by image, and rounded to float32."""
    network.double()
    try:
        rows = [network.outputs(torch.from_numpy(image[None]).double(), features=features) for image in images]
    finally:
        network.float()
    return Outputs(**{name: torch.cat([row[name].float() for row in rows]).numpy() for name in rows[0]})
