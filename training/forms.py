"""The forms that a network is exported in: how each is written, and the engine that runs it when it is checked."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnx
import torch
from torch import Tensor, nn

from rankone.model.bundle import ONNX, PROGRAM, TORCHSCRIPT, Manifest
from rankone.model.engine import Engine
from rankone.model.engine.base import Options
from rankone.model.engine.export import export_engine
from rankone.model.engine.onnx import OnnxEngine
from rankone.model.engine.torch_engine import torchscript_engine
from rankone.model.network import Network
from rankone.training.parity import EngineRun, ExportError

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
class Form:
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


def _open_onnx(path: Path, options: Options, _: Manifest) -> Engine:
    return OnnxEngine(path, options)


FORMS: Final[Mapping[str, Form]] = {
    ONNX: Form(_write_onnx, _open_onnx),
    TORCHSCRIPT: Form(_write_torchscript, torchscript_engine),
    PROGRAM: Form(_write_program, export_engine),
}
"""By the name of the file in the bundle."""
