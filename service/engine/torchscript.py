"""TorchScript, run by torch: deprecated since torch 2.15, and still working."""

from __future__ import annotations

import warnings

import torch

from model.bundle import TORCHSCRIPT, Bundle
from service.engine.base import Options
from service.engine.torch_engine import TorchEngine, check_options


def torchscript_engine(bundle: Bundle, options: Options) -> TorchEngine:
    """The bundle's `model.torchscript.pt`.

    Raises:
        EngineError: the options cannot be honoured.
        BundleError: the bundle has no such file.
    """
    check_options("torchscript", options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit", category=FutureWarning)
        module = torch.jit.load(bundle.file(TORCHSCRIPT), map_location=options.device).eval()
    return TorchEngine("torchscript", module, bundle, options)
