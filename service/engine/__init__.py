"""Engines: the exported network, run by one library on one device. All answer alike (`tests/service/test_engine.py`)."""

from __future__ import annotations

from typing import Literal

from model.bundle import Bundle
from service.engine.base import Engine, EngineError, EngineOutOfMemory, Outputs


def load_engine(bundle: Bundle, name: Literal["onnx", "torchscript"], device: str, threads: int) -> Engine:
    """The engine `name` for `bundle`. Each engine's library is imported here, only when it is asked for.

    Raises:
        EngineError: the device cannot be had, or the library is missing; the message says what to do.
        BundleError: the bundle lacks the file that the engine runs.
    """
    if name == "onnx":
        from service.engine.onnx import OnnxEngine

        return OnnxEngine(bundle, device, threads)
    from service.engine.torchscript import TorchScriptEngine

    return TorchScriptEngine(bundle, device, threads)


__all__ = ["Engine", "EngineError", "EngineOutOfMemory", "Outputs", "load_engine"]
