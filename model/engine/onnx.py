"""ONNX Runtime on the CPU: the default engine, which needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime

from rankone.model.engine.base import Batch, EngineError, Options, Outputs, Precision, reports_out_of_memory
from rankone.model.evidence import FEATURES

_CPU: Final = "CPUExecutionProvider"
_SPIN_US: Final = 100
"""How long an idle thread spins before it sleeps: long enough between two operators of a run. By default threads spin for tens
of milliseconds after each run, on cores that decoders and the server could use."""


class OnnxEngine:
    """A `model.onnx` or `model.int8.onnx` on the CPU.

    Raises:
        EngineError: another precision than float32 and int8, or an option that needs a GPU.
    """

    name = "onnx"

    def __init__(self, path: Path, options: Options) -> None:
        _check_options(options)
        self.precision: Precision = options.precision
        self._session = onnxruntime.InferenceSession(
            path, session_options(options.threads), providers=[_CPU], enable_fallback=False
        )
        self._all = [output.name for output in self._session.get_outputs()]
        self._names = [name for name in self._all if name != FEATURES]
        self.provider: str = self._session.get_providers()[0]

    @reports_out_of_memory
    def run(self, images: Batch, *, features: bool = False) -> Outputs:
        names = self._all if features else self._names
        found = self._session.run(names, {"images": np.asarray(images)})
        return Outputs(**dict(zip(names, found, strict=True)))

    def close(self) -> None:
        del self._session


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """For every session, on a CPU or a GPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads  # the default is the host's number of cores, also in a container with fewer
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
    options.log_severity_level = 3  # errors are raised, and need not be printed as well
    return options


def _check_options(options: Options) -> None:
    if options.precision not in ("float32", "int8"):
        raise EngineError(
            f"ONNX Runtime has no convolution in {options.precision} on the CPU: set RANKONE_PRECISION=float32, or "
            "RANKONE_ENGINE=export with bfloat16"
        )
    if options.cuda_graphs or options.tensorrt_cache is not None:
        raise EngineError(
            "CUDA graphs and TensorRT need a GPU: set RANKONE_DEVICE=cuda, or leave RANKONE_CUDA_GRAPHS and "
            "RANKONE_TENSORRT_CACHE unset"
        )
