"""ONNX Runtime on the CPU: the default engine, which needs no torch."""

from __future__ import annotations

from typing import Final

import onnxruntime

from rankone.model.bundle import ONNX, Bundle
from rankone.model.engine.base import EngineError, Images, Options, Outputs, Precision, reports_out_of_memory

_CPU: Final = "CPUExecutionProvider"
_SPIN_US: Final = 100
"""How long a thread of the engine that waits for the others keeps its core. Between two parts of a run that is enough; by
default it goes on for tens of milliseconds after a run, on a core that decoders and the server could have."""


class OnnxEngine:
    """The bundle's `model.onnx`.

    Raises:
        EngineError: another precision than float32, or what only a GPU has.
    """

    name = "onnx"
    precision: Precision = "float32"

    def __init__(self, bundle: Bundle, options: Options) -> None:
        _check_options(options)
        self._session = onnxruntime.InferenceSession(
            bundle.file(ONNX), session_options(options.threads), providers=[_CPU], enable_fallback=False
        )
        self.provider: str = self._session.get_providers()[0]

    @reports_out_of_memory
    def run(self, images: Images) -> Outputs:
        embedding, *logits = self._session.run(None, {"images": images})
        return Outputs(embedding, logits[0] if logits else None)

    def close(self) -> None:
        del self._session


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Of every session."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads  # its own default counts the host's cores, not those we may use
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
    options.log_severity_level = 3  # we report what fails ourselves, in a sentence
    return options


def _check_options(options: Options) -> None:
    if options.precision != "float32":
        raise EngineError(
            f"ONNX Runtime has no convolution in {options.precision} on the CPU: set RANKONE_PRECISION=float32, or "
            "RANKONE_ENGINE=export with bfloat16"
        )
    if options.cuda_graphs or options.tensorrt_cache is not None:
        raise EngineError(
            "CUDA graphs and TensorRT need a GPU: set RANKONE_DEVICE=cuda, or leave RANKONE_CUDA_GRAPHS and "
            "RANKONE_TENSORRT_CACHE unset"
        )
