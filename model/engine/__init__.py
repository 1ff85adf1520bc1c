"""Engines: the exported network, run by one library on one device. All answer alike (`tests/model/engine/test_engine.py`)."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rankone.model.bundle import Bundle
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
)
from rankone.model.engine.check import check_answer, check_precision
from rankone.model.errors import RankoneError


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
    """The engine `name` for `bundle`. Each engine's library is imported here, only when it is asked for.

    It has answered an image as its bundle's manifest says before it is given out; whatever is not float32 on the CPU is held
    against it, on a few more.

    Args:
        bundle: whose network is run.
        name: of the engine.
        device: where it runs.
        threads: of the CPU.
        precision: of the backbone.
        cuda_graphs: record every batch size once, then replay it.
        tensorrt_cache: run the onnx engine by TensorRT, which keeps here what it builds.
        max_batch: the largest batch that TensorRT prepares for.

    Raises:
        EngineError: what was asked for cannot be had, or its answers are not precise enough; the message says what to do.
        UnusableNetwork: the library cannot read or run the file, or it does not answer as the manifest says.
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
    with _as_unusable(bundle, name):
        engine = _open(bundle, name, options)
        try:
            check_answer(engine, bundle.manifest)
            if (device, precision) != ("cpu", "float32"):
                _check(engine, bundle, name, threads)
        except Exception:
            engine.close()
            raise
    return engine


@contextmanager
def _as_unusable(bundle: Bundle, name: EngineName) -> Iterator[None]:
    """Errors of the libraries, which have no common root, as one of ours."""
    try:
        yield
    except RankoneError:
        raise
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UnusableNetwork(f"the {name} engine cannot run the network in {bundle.path}: {reason}") from error


def _open(bundle: Bundle, name: EngineName, options: Options) -> Engine:
    if name == "onnx" and options.device == "cpu":
        from rankone.model.engine.onnx import OnnxEngine

        return OnnxEngine(bundle, options)
    _check_torch(name)
    if name == "onnx":
        from rankone.model.engine.onnx_gpu import OnnxGpuEngine

        return OnnxGpuEngine(bundle, options)
    if name == "torchscript":
        from rankone.model.engine.torchscript import torchscript_engine

        return torchscript_engine(bundle, options)
    from rankone.model.engine.export import export_engine

    return export_engine(bundle, options)


def _check(engine: Engine, bundle: Bundle, name: EngineName, threads: int) -> None:
    import torch  # which every engine has that is checked

    num_threads = torch.get_num_threads()
    reference = _open(bundle, name, Options(device="cpu", threads=threads))
    try:
        check_precision(engine, reference, bundle.manifest.preprocessing.size)
    finally:
        reference.close()
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
]
