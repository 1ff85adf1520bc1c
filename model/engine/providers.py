"""ONNX Runtime sessions on a GPU: CUDA runs everything, or TensorRT the backbone and CUDA the rest."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import onnxruntime
from onnx import ModelProto

from rankone.model.engine.base import EngineError, Options, Precision
from rankone.model.engine.onnx import session_options
from rankone.model.engine.onnx_half import in_backbone

CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"

_HEAVY: Final = frozenset({"Conv", "FusedConv", "MaxPool", "MatMul", "FusedMatMul", "Gemm", "ScatterElements"})
"""Operators that must not run on the CPU. ONNX Runtime computes shapes there on purpose."""
_HINT: Final = (
    "Check that the NVIDIA driver is visible here (nvidia-smi) and, for TensorRT, that it is installed; or set "
    "RANKONE_DEVICE=cpu"
)
_LAYOUTS: Final[Mapping[Precision, Mapping[str, str]]] = {
    "float16": {"prefer_nhwc": "1", "cudnn_conv_algo_search": "HEURISTIC"}
}
"""Channels last is what tensor cores read; an exhaustive search there finds the slow ones, and without them (float32) channels
first is faster (docs/results/gpu.md)."""
_FATAL: Final = 4
_LIBRARIES: Final = (
    ("nvidia", "curand/lib/libcurand.so.10"),
    ("tensorrt_libs", "libnvinfer.so.10"),
    ("tensorrt_libs", "libnvinfer_plugin.so.10"),
)
"""Libraries that ONNX Runtime does not find by itself, with their packages. cuRAND's is the same in CUDA 12 and 13."""


def open_session(model: ModelProto, options: Options, stream: int) -> onnxruntime.InferenceSession:
    """A session that runs `model` on the GPU, in the order of `stream`.

    Raises:
        EngineError: a provider fails; or ONNX Runtime chose another one, as it silently does when one does not load; or it
            keeps heavy operators on the CPU.
    """
    wanted = gpu_providers(model, options, stream)
    preload_libraries()
    settings = session_options(options.threads)
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    names = [name for name, _ in wanted]
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), settings, providers=wanted, enable_fallback=False
        )
    except Exception as error:  # its own have no common root
        raise EngineError(f"ONNX Runtime cannot run by {names[0]}: {str(error).splitlines()[0]}. {_HINT}") from error
    check_providers(session, names)
    # otherwise each run prints a line for every algorithm that cuDNN does not support
    onnxruntime.set_default_logger_severity(_FATAL)
    return session


def gpu_providers(model: ModelProto, options: Options, stream: int) -> list[tuple[str, Mapping[str, Any]]]:
    """The providers for `options`, first choice first, each with its own options."""
    cuda = {
        "user_compute_stream": str(stream),
        "use_tf32": "0",
        "arena_extend_strategy": "kSameAsRequested",  # by default it doubles, and half of a large card may stay unused
        "enable_cuda_graph": str(int(options.cuda_graphs)),
    }
    if options.tensorrt_cache is None:
        return [(CUDA, {**cuda, **_LAYOUTS.get(options.precision, {})})]
    options.tensorrt_cache.mkdir(parents=True, exist_ok=True)
    # ONNX Runtime has no option for TensorRT's TF32; NVIDIA's libraries read this as they start
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
    return [(TENSORRT, _tensorrt(model, options, stream)), (CUDA, cuda)]


def check_providers(session: onnxruntime.InferenceSession, wanted: list[str]) -> None:
    """Raises EngineError unless each provider of `wanted` runs a part of the graph, and no other one a heavy operator."""
    found = session.get_providers()
    if missing := [name for name in wanted if name not in found]:
        raise EngineError(f"{missing[0]} was asked for, but ONNX Runtime runs on {found[0]}. {_HINT}")
    assigned = session.get_provider_graph_assignment_info()
    nodes = [(part.ep_name, node.op_type) for part in assigned for node in part.get_nodes()]
    if strayed := sorted({operator for name, operator in nodes if name not in wanted and operator in _HEAVY}):
        raise EngineError(f"ONNX Runtime keeps {', '.join(strayed)} off the GPU: set RANKONE_ENGINE=export")
    if idle := sorted(set(wanted) - {name for name, _ in nodes}):
        raise EngineError(f"ONNX Runtime gives nothing to {idle[0]}. {_HINT}")


def preload_libraries() -> None:
    """Loads the libraries that the providers need from their packages, where these are installed."""
    for package, library in _LIBRARIES:
        for path in _places(package, library):
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    onnxruntime.preload_dlls(directory="")


def _places(package: str, library: str) -> Iterator[Path]:
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    return (path for folder in folders or () if (path := Path(folder, library)).exists())


def _tensorrt(model: ModelProto, options: Options, stream: int) -> dict[str, Any]:
    """TensorRT runs the backbone only: it would run the head in lower precision, or reorder its sums."""
    nodes = model.graph.node
    backbone = {node.op_type for node in nodes if in_backbone(node)}
    head = {node.op_type for node in nodes if not in_backbone(node)} - backbone - {"Cast"}
    size = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:]

    def shape(batch: int) -> str:
        return "images:" + "x".join(str(length) for length in (batch, *size))

    return {
        "user_compute_stream": str(stream),
        "trt_fp16_enable": options.precision == "float16",
        "trt_op_types_to_exclude": ",".join(sorted(head)),
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(options.tensorrt_cache),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(options.tensorrt_cache),
        "trt_profile_min_shapes": shape(1),
        "trt_profile_opt_shapes": shape(options.max_batch),
        "trt_profile_max_shapes": shape(options.max_batch),
    }
