"""Engines run an exported network by one library on one device.

The parity check of an export, `rankone evaluate` and the service run the same engines; they all give the same answers
(`tests/model/engine/test_engine.py`).
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from rankone.model.bundle import INT8, ONNX, PROGRAM, TORCHSCRIPT, Bundle
from rankone.model.engine.base import (
    Device,
    Engine,
    EngineError,
    EngineName,
    EngineOutOfMemory,
    Options,
    Outputs,
    Precision,
    UnusableNetwork,
    reason_of,
)
from rankone.model.engine.check import MIN_COSINE, check_answer, check_precision
from rankone.model.errors import RankoneError

# Since 1.29, ONNX Runtime reports every session to its makers: from a thread of its own, with a database in the home directory.
# It reads this variable once, as it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def load_engine(
    bundle: Bundle,
    name: EngineName,
    device: Device,
    threads: int,
    precision: Precision = "float32",
    *,
    cuda_graphs: bool = False,
    tensorrt_cache: Path | None = None,
    max_batch: int = 16,
) -> Engine:
    """The engine `name` for `bundle`. Its library is imported only now.

    The engine has answered a test image as the manifest says. If it does not run in float32 on the CPU, or by OpenVINO, its
    answers to some images have also been compared with those of float32 on the CPU.

    Args:
        bundle: whose network is run.
        name: of the engine.
        device: where it runs.
        threads: of the CPU.
        precision: of the backbone.
        cuda_graphs: record each batch size once, then replay it.
        tensorrt_cache: run the onnx engine by TensorRT, which keeps here what it builds.
        max_batch: the largest batch that TensorRT prepares for.

    Raises:
        EngineError: an option is not supported here, or the answers are not precise enough; the message says what to do.
        UnusableNetwork: the library cannot read or run the file, or its answers are not what the manifest says.
        BundleError: the bundle lacks the file that the engine runs.
    """
    options = Options(
        device=device,
        threads=threads,
        precision=precision,
        cuda_graphs=cuda_graphs,
        tensorrt_cache=tensorrt_cache,
        max_batch=max_batch,
    )
    try:
        engine = unchecked_engine(bundle, name, options)
        try:
            check_answer(engine, bundle.manifest)
            if (device, precision) != ("cpu", "float32") or name == "openvino":
                _check(engine, bundle, name, threads)
        except Exception:
            engine.close()
            raise
    except RankoneError:
        raise
    except Exception as error:  # of a library; they have no common base class
        raise UnusableNetwork(
            f"the {name} engine cannot run the network in {bundle.path}: {reason_of(error)}"
        ) from error
    return engine


def unchecked_engine(bundle: Bundle, name: EngineName, options: Options) -> Engine:
    """The engine, whose answers nobody has looked at. Raises what its library raises."""
    graph = ONNX
    if options.precision == "int8":
        _check_int8(bundle, name, options.device)
        graph = INT8
    if name == "onnx" and options.device == "cpu":
        from rankone.model.engine.onnx import OnnxEngine

        return OnnxEngine(bundle.file(graph), options)
    if name == "openvino":
        from rankone.model.engine.openvino import OpenVinoEngine

        return OpenVinoEngine(bundle.file(graph), options)
    _check_torch(name)
    if name == "onnx":
        from rankone.model.engine.onnx_gpu import OnnxGpuEngine

        return OnnxGpuEngine(bundle, options)
    if name == "torchscript":
        from rankone.model.engine.torch_engine import torchscript_engine

        return torchscript_engine(bundle.file(TORCHSCRIPT), options, bundle.manifest)
    if PROGRAM not in bundle.manifest.files:
        raise UnusableNetwork(
            f"{bundle.path} was exported before there was a {PROGRAM}, which the export engine runs: export it again "
            "(rankone export), or set RANKONE_ENGINE=onnx"
        )
    from rankone.model.engine.export import export_engine

    return export_engine(bundle.file(PROGRAM), options, bundle.manifest)


def _check_int8(bundle: Bundle, name: EngineName, device: Device) -> None:
    if name not in ("onnx", "openvino") or device != "cpu":
        raise EngineError(
            f"the {name} engine on device {device!r} has no int8: set RANKONE_ENGINE=onnx or openvino and RANKONE_DEVICE=cpu, "
            "or another RANKONE_PRECISION"
        )
    if bundle.manifest.int8 is None:
        raise UnusableNetwork(
            f"{bundle.path} has no {INT8}: make a bundle with one by rankone quantize, or set RANKONE_PRECISION=float32"
        )


def _check(engine: Engine, bundle: Bundle, name: EngineName, threads: int) -> None:
    torch = sys.modules.get("torch")  # which is loaded if either of the two engines is torch's
    num_threads = torch.get_num_threads() if torch else 0
    # OpenVINO is compared with ONNX Runtime, which runs the same file by other code
    reference = unchecked_engine(bundle, "onnx" if name == "openvino" else name, Options(device="cpu", threads=threads))
    try:
        int8 = bundle.manifest.int8 if engine.precision == "int8" else None
        least = MIN_COSINE[engine.precision] if int8 is None else int8.least_cosine
        check_precision(engine, reference, bundle.manifest.preprocessing.size, least)
    finally:
        reference.close()
        if torch:
            torch.set_num_threads(num_threads)  # the engine's own


def _check_torch(name: EngineName) -> None:
    try:
        importlib.import_module("torch")
    except ImportError as error:
        needs, instead = (
            ("device 'cuda'", "RANKONE_DEVICE=cpu") if name == "onnx" else (f"the {name} engine", "RANKONE_ENGINE=onnx")
        )
        raise EngineError(f"{needs} needs torch: install it, or set {instead}") from error


def gpu_memory_bytes() -> int:
    """GPU memory in use, by this process and all others. Every engine on a GPU has torch installed beside it."""
    import torch

    free, total = torch.cuda.mem_get_info()
    return total - free


__all__ = [
    "Engine",
    "EngineError",
    "EngineOutOfMemory",
    "Outputs",
    "UnusableNetwork",
    "gpu_memory_bytes",
    "load_engine",
    "unchecked_engine",
]
