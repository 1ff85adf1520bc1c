"""What the engines that torch runs have in common: they differ only in how their file is opened."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn

from rankone.model.bundle import Bundle
from rankone.model.engine.base import (
    EngineError,
    EngineName,
    Images,
    Options,
    Outputs,
    Precision,
    UnusableNetwork,
    reports_out_of_memory,
)
from rankone.model.engine.lanes import Lane, Lanes, Step

logger = logging.getLogger("rankone")

_TYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_BACKBONE: Final = "backbone."
_WARM_UP: Final = 3
"""Runs before one is recorded: libraries choose their kernels, and TorchScript specializes, in the first ones."""


class TorchEngine:
    """An exported module behind the engine's protocol.

    Precision is a matter of the weights: what is behind the backbone begins with a cast to float32, which every exported graph
    holds. So the backbone's weights and its input are cast, and the graph stays as it is.

    Args:
        name: the engine's.
        module: on the device already, float32; images -> embedding, or (embedding, logits).
        bundle: whose module it is.
        options: how to run it; see `check_options`.
    """

    def __init__(self, name: EngineName, module: nn.Module, bundle: Bundle, options: Options) -> None:
        self.name: str = name
        self.precision: Precision = options.precision
        self.provider = "cpu" if options.device == "cpu" else torch.cuda.get_device_name()
        torch.set_num_threads(options.threads)
        self._module, self._type = module, _TYPES[options.precision]
        self._pool = torch.cuda.graph_pool_handle() if options.cuda_graphs else None
        lower(module, self._type)
        self._lanes: Lanes | None = None
        if options.device == "cuda":
            use_no_tf32()
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())  # in which the weights are being cast
            self._lanes = Lanes(bundle.manifest, torch.device("cuda"), stream, options.threads, self.prepare)

    @reports_out_of_memory
    def run(self, images: Images) -> Outputs:
        if self._lanes is not None:
            return self._lanes.run(images)
        with torch.inference_mode():
            embedding, *logits = self._forward(torch.from_numpy(images))
        return Outputs(embedding.numpy(), logits[0].numpy() if logits else None)

    def close(self) -> None:
        del self._module
        if self._lanes is not None:
            self._lanes.close()
            torch.cuda.empty_cache()  # what torch keeps for itself is of no use to the engine that comes next

    def prepare(self, lane: Lane) -> Step:
        """What runs the network from a lane's images to its outputs; with CUDA graphs, a recording of it."""

        def step() -> None:
            for found, buffer in zip(self._forward(lane.images), lane.outputs, strict=True):
                buffer.copy_(found)

        return step if self._pool is None else recorded(step, self._pool)

    def _forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs = self._module(images.to(self._type, memory_format=torch.channels_last))
        return (outputs,) if isinstance(outputs, Tensor) else outputs


def lower(module: nn.Module, dtype: torch.dtype) -> None:
    """Casts the weights of the backbone within `module`, and lays them out as convolutions read them, channels last.

    Raises:
        UnusableNetwork: there is no backbone in it.
    """
    weights = [weight for name, weight in module.named_parameters() if _BACKBONE in name]
    if not weights:
        raise UnusableNetwork("the exported module has no backbone by that name: export the bundle again")
    for weight in weights:
        layout = torch.channels_last if weight.dim() == 4 else torch.preserve_format
        weight.data = weight.data.to(dtype, memory_format=layout)


def recorded(step: Callable[[], None], pool: Any) -> Step:
    """A CUDA graph of `step`, on the current stream; other threads may go on using the GPU meanwhile.

    Recordings that never run at once may share a pool of memory, as what they leave behind is in no buffer of it.
    """
    for _ in range(_WARM_UP):
        step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
        step()
    return graph.replay


def check_options(name: EngineName, options: Options) -> None:
    """Raises EngineError for what torch cannot do here; the message says what to choose instead."""
    if options.tensorrt_cache is not None:
        raise EngineError(
            f"TensorRT runs the onnx engine only, not {name}: set RANKONE_ENGINE=onnx or no TensorRT cache"
        )
    if options.device == "cuda":
        check_gpu(options.precision)
    elif options.cuda_graphs:
        raise EngineError("CUDA graphs need a GPU: set RANKONE_DEVICE=cuda, or RANKONE_CUDA_GRAPHS=false")
    elif not _has_units(options.precision):
        logger.warning(
            "this CPU computes %s by other means, and more slowly than float32: see rankone bench engines",
            options.precision,
        )


def check_gpu(precision: Precision) -> None:
    """Raises EngineError where torch finds no GPU, or one without bfloat16 when that is asked for."""
    if not torch.cuda.is_available():
        raise EngineError(
            "device 'cuda' was asked for, but torch finds no GPU: check that the NVIDIA driver is visible here "
            "(nvidia-smi), or set RANKONE_DEVICE=cpu"
        )
    if precision == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise EngineError(f"{torch.cuda.get_device_name()} has no bfloat16: set RANKONE_PRECISION=float16 or float32")


def use_no_tf32() -> None:
    """Float32 in float32, also behind a lowered backbone: TF32 has 10 bits."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def _has_units(precision: Precision) -> bool:
    if precision == "float32":
        return True
    return bool(getattr(torch.ops.mkldnn, f"_is_mkldnn_{'bf16' if precision == 'bfloat16' else 'fp16'}_supported")())
