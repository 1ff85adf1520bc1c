"""TorchScript, run by torch: deprecated since torch 2.15, and still working."""

from __future__ import annotations

import warnings

from model.bundle import TORCHSCRIPT, Bundle
from service.engine.base import EngineError, Images, Outputs

try:
    import torch
except ImportError as error:
    raise EngineError("the torchscript engine needs torch: install it, or set RANKONE_ENGINE=onnx") from error


class TorchScriptEngine:
    """The bundle's `model.torchscript.pt`.

    Raises:
        EngineError: CUDA is asked for and torch cannot use it.
    """

    name = "torchscript"
    precision = "float32"

    def __init__(self, bundle: Bundle, device: str, threads: int) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise EngineError(
                "device 'cuda' was asked for, but torch finds no GPU: check that the NVIDIA driver is visible here "
                "(nvidia-smi), or set RANKONE_DEVICE=cpu"
            )
        torch.set_num_threads(threads)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"`torch\.jit", category=FutureWarning)
            self._module = torch.jit.load(bundle.file(TORCHSCRIPT), map_location=device).eval()
        self._device = device
        self.provider = device if device == "cpu" else torch.cuda.get_device_name()

    def close(self) -> None: ...

    @torch.inference_mode()
    def run(self, images: Images) -> Outputs:
        outputs = self._module(torch.from_numpy(images).to(self._device))
        if isinstance(outputs, torch.Tensor):
            return Outputs(outputs.cpu().numpy(), None)
        return Outputs(outputs[0].cpu().numpy(), outputs[1].cpu().numpy())
