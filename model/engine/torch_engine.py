"""Exported modules run by torch: the engine that TorchScript and `torch.export` share, and TorchScript itself."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from rankone.model.bundle import Manifest
from rankone.model.engine.base import (
    Batch,
    EngineError,
    EngineName,
    Options,
    Outputs,
    Precision,
    UnusableNetwork,
    reports_out_of_memory,
)
from rankone.model.engine.buffers import BufferedRunner, Buffers, Step
from rankone.model.evidence import FEATURES

logger = logging.getLogger("rankone")

_TYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_BACKBONE: Final = "backbone."
_WARM_UP: Final = 3
"""Runs before one is recorded: in the first ones, libraries choose their kernels and TorchScript specializes."""


class TorchEngine:
    """Runs an exported module.

    For a lower precision, the backbone's weights and its input are cast. The graph stays as it is: every exported graph casts
    to float32 behind the backbone.

    Args:
        name: of the engine.
        module: on the device, in float32; images -> embedding, or all outputs in the order of `Manifest.shapes`.
        options: how to run it; see `check_options`.
        manifest: of its bundle: the names of the outputs, and the shapes of the buffers on a GPU.
    """

    def __init__(self, name: EngineName, module: nn.Module, options: Options, manifest: Manifest) -> None:
        self.name: str = name
        self.precision: Precision = options.precision
        self.provider = "cpu" if options.device == "cpu" else torch.cuda.get_device_name()
        torch.set_num_threads(options.threads)
        self._module, self._type = module, _TYPES[options.precision]
        self._names = tuple(manifest.shapes)
        self._pool = torch.cuda.graph_pool_handle() if options.cuda_graphs else None
        lower(module, self._type)
        self._runner: BufferedRunner | None = None
        if options.device == "cuda":
            use_no_tf32()
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())  # which still casts the weights
            self._runner = BufferedRunner(manifest, torch.device("cuda"), stream, options.threads, self.prepare)

    @reports_out_of_memory
    def run(self, images: Batch, *, features: bool = False) -> Outputs:
        if self._runner is not None:
            return self._runner.run(images, features=features)
        with torch.inference_mode():
            found = dict(zip(self._names, self._forward(torch.from_numpy(np.asarray(images))), strict=True))
        if not features:
            found.pop(FEATURES, None)
        return Outputs(**{name: output.numpy() for name, output in found.items()})

    def close(self) -> None:
        del self._module
        if self._runner is not None:
            self._runner.close()
            torch.cuda.empty_cache()  # torch would keep it, and the next engine may not be torch

    def prepare(self, buffers: Buffers) -> Step:
        """Returns what runs the network from the buffers' images to their outputs; with CUDA graphs, a recording of it."""

        def step() -> None:
            for found, buffer in zip(self._forward(buffers.images), buffers.outputs.values(), strict=True):
                buffer.copy_(found)

        return step if self._pool is None else recorded(step, self._pool)

    def _forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs = self._module(images.to(self._type, memory_format=torch.channels_last))
        return (outputs,) if isinstance(outputs, Tensor) else outputs


def torchscript_engine(path: Path, options: Options, manifest: Manifest) -> TorchEngine:
    """A `model.torchscript.pt`. TorchScript is deprecated since torch 2.15, and still works.

    Raises:
        EngineError: the options are not supported.
        UnusableNetwork: it would compute float32 in TF32.
    """
    check_options("torchscript", options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit", category=FutureWarning)
        module = torch.jit.load(path, map_location=options.device).eval()
    if (options.device, options.precision) == ("cuda", "float32"):
        check_no_tf32(module)
    return TorchEngine("torchscript", module, options, manifest)


def check_no_tf32(module: torch.jit.ScriptModule) -> None:
    """Raises UnusableNetwork if TF32 was allowed when a convolution was traced: its graph stores that, and ignores settings."""
    graph = module.inlined_graph
    for node in graph.findAllNodes("aten::_convolution"):  # type: ignore[attr-defined]
        if list(node.inputs())[-1].toIValue():
            raise UnusableNetwork(
                "model.torchscript.pt was exported by an older version and would compute float32 in TF32, with 10 bits: "
                "export the bundle again, or set RANKONE_ENGINE=onnx"
            )


def lower(module: nn.Module, dtype: torch.dtype) -> None:
    """Casts the weights of the backbone within `module`, and lays them out channels last, as convolutions read them.

    Raises:
        UnusableNetwork: the module has no parameters of a backbone.
    """
    weights = [weight for name, weight in module.named_parameters() if _BACKBONE in name]
    if not weights:
        raise UnusableNetwork("the exported module has no backbone by that name: export the bundle again")
    for weight in weights:
        layout = torch.channels_last if weight.dim() == 4 else torch.preserve_format
        weight.data = weight.data.to(dtype, memory_format=layout)


def recorded(step: Callable[[], None], pool: Any) -> Step:
    """A CUDA graph of `step`, recorded on the current stream while other threads may use the GPU.

    The graphs share a pool of memory: they never run at once, and their outputs are copied to buffers outside of it.
    """
    for _ in range(_WARM_UP):
        step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
        step()
    return graph.replay


def check_options(name: EngineName, options: Options) -> None:
    """Raises EngineError for an option that torch does not support here; the message says what to set instead."""
    if options.tensorrt_cache is not None:
        raise EngineError(
            f"TensorRT runs the onnx engine only, not {name}: set RANKONE_ENGINE=onnx or no TensorRT cache"
        )
    if options.device == "cuda":
        check_gpu(options.precision)
    elif options.cuda_graphs:
        raise EngineError("CUDA graphs need a GPU: set RANKONE_DEVICE=cuda, or RANKONE_CUDA_GRAPHS=false")
    elif not has_instructions(options.precision):
        logger.warning(
            "this CPU has no instructions for %s, so it is slower than float32: see rankone bench engines",
            options.precision,
        )


def check_gpu(precision: Precision) -> None:
    """Raises EngineError if torch finds no GPU, or a GPU without bfloat16 where that is the precision."""
    if not torch.cuda.is_available():
        raise EngineError(
            "device 'cuda' was asked for, but torch finds no GPU: check that the NVIDIA driver is visible here "
            "(nvidia-smi), or set RANKONE_DEVICE=cpu"
        )
    if precision == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise EngineError(f"{torch.cuda.get_device_name()} has no bfloat16: set RANKONE_PRECISION=float16 or float32")


def use_no_tf32() -> None:
    """Makes float32 mean float32, also behind a backbone in lower precision: TF32 has 10 bits."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def has_instructions(precision: Precision) -> bool:
    """Whether this CPU computes in `precision` itself; a convolution that is emulated takes many times as long."""
    if precision == "float32":
        return True
    return bool(getattr(torch.ops.mkldnn, f"_is_mkldnn_{'bf16' if precision == 'bfloat16' else 'fp16'}_supported")())
