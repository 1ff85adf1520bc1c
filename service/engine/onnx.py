"""ONNX Runtime: the default engine, which needs no torch."""

from __future__ import annotations

from typing import Final

import onnxruntime

from model.bundle import ONNX, Bundle
from service.engine.base import EngineError, Images, Outputs

_PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxEngine:
    """The bundle's `model.onnx`.

    Raises:
        EngineError: ONNX Runtime chose another provider than the device asked for, as it silently does when CUDA does
            not load.
    """

    name = "onnx"
    precision = "float32"

    def __init__(self, bundle: Bundle, device: str, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads  # its own default counts the host's cores, not those we may use
        options.log_severity_level = 3  # we report a provider that does not load ourselves, in a sentence
        wanted = _PROVIDERS[device]
        if device == "cuda":
            onnxruntime.preload_dlls(directory="")  # the CUDA libraries of the nvidia packages beside it
        self._session = onnxruntime.InferenceSession(bundle.file(ONNX), options, providers=[wanted])
        self.provider: str = self._session.get_providers()[0]
        if self.provider != wanted:
            raise EngineError(
                f"device {device!r} was asked for, but ONNX Runtime runs on {self.provider}: check that the NVIDIA driver is "
                "visible here (nvidia-smi), or set RANKONE_DEVICE=cpu"
            )

    def close(self) -> None: ...

    def run(self, images: Images) -> Outputs:
        outputs = self._session.run(None, {"images": images})
        return Outputs(outputs[0], outputs[1] if len(outputs) > 1 else None)
