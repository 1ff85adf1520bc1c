"""The forms that a network is exported in: how each is written, and read again to be checked."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from rankone.model.bundle import ONNX, PROGRAM, TORCHSCRIPT
from rankone.model.network import Network
from rankone.training.parity import ExportError, Forward, Outputs, as_arrays

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


class EmbeddingOnly(nn.Module):
    """A network without classes, with one output: no form can return None."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.embed(images)


@dataclass(frozen=True)
class Form:
    """`write` exports a module, traced on two example images, to a path; `load` makes a function of that file again."""

    write: Callable[[nn.Module, Tensor, Path], None]
    load: Callable[[Path], Forward]


def check_graph(model: onnx.ModelProto) -> None:
    """Raises ExportError if the graph, or a function in it, holds an operator that is wrong, racing or random at inference."""
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for operator in sorted({node.op_type for node in nodes} & set(_FORBIDDEN_OPERATORS)):
        raise ExportError(f"the graph holds {operator}: {_FORBIDDEN_OPERATORS[operator]}")


def onnx_forward(path: Path) -> Forward:
    """The ONNX file as a function, on the CPU with ONNX Runtime's default threads."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def forward(images: npt.NDArray[np.float32]) -> Outputs:
        outputs = session.run(None, {"images": images})
        return outputs[0], outputs[1] if len(outputs) > 1 else None

    return forward


@torch.no_grad()
def _write_onnx(network: nn.Module, example: Tensor, path: Path) -> None:
    names = ["embedding"] if isinstance(network, EmbeddingOnly) else ["embedding", "logits"]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program: Any = torch.onnx.export(
        network,
        (example,),
        dynamo=True,
        dynamic_shapes=_any_batch(),
        input_names=["images"],
        output_names=names,
        verbose=False,
    )
    check_graph(program.model_proto)
    program.save(path)


@torch.no_grad()
def _write_torchscript(network: nn.Module, example: Tensor, path: Path) -> None:
    """A trace keeps, as constants of each convolution, whether it may use cuDNN and TF32: no setting is asked later."""
    with warnings.catch_warnings(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        _ignore_torchscript_warnings()
        traced = torch.jit.trace(network, example, check_trace=False, strict=False)
        traced.save(path)


def _torchscript_forward(path: Path) -> Forward:
    with warnings.catch_warnings():
        _ignore_torchscript_warnings()
        return _forward_of(torch.jit.load(path))


@torch.no_grad()
def _write_program(network: nn.Module, example: Tensor, path: Path) -> None:
    """Without its example inputs, the one thing in the archive that would be a pickle."""
    program = torch.export.export(network, (example,), dynamic_shapes=_any_batch())
    program.example_inputs = None
    torch.export.save(program, path)


def _program_forward(path: Path) -> Forward:
    return _forward_of(torch.export.load(path).module())


def _forward_of(module: Callable[[Tensor], Tensor | tuple[Tensor, Tensor | None]]) -> Forward:
    @torch.inference_mode()
    def forward(images: npt.NDArray[np.float32]) -> Outputs:
        return as_arrays(module(torch.from_numpy(images)))

    return forward


def _any_batch() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim("batch")},)


def _ignore_torchscript_warnings() -> None:
    """Deprecated since torch 2.15, and asked for; and what a trace does not follow is our checks of shapes."""
    warnings.filterwarnings("ignore", message=r"`torch\.jit", category=FutureWarning)
    warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]


FORMS: Final[Mapping[str, Form]] = {
    ONNX: Form(_write_onnx, onnx_forward),
    TORCHSCRIPT: Form(_write_torchscript, _torchscript_forward),
    PROGRAM: Form(_write_program, _program_forward),
}
"""By the name of the file in the bundle."""
