"""TorchScript, run by torch: deprecated since torch 2.15, and still working."""

from __future__ import annotations

import warnings

import torch

from rankone.model.bundle import TORCHSCRIPT, Bundle
from rankone.model.engine.base import Options, UnusableNetwork
from rankone.model.engine.torch_engine import TorchEngine, check_options


def torchscript_engine(bundle: Bundle, options: Options) -> TorchEngine:
    """The bundle's `model.torchscript.pt`.

    Raises:
        EngineError: the options cannot be honoured.
        UnusableNetwork: on a GPU float32 would not be float32.
        BundleError: the bundle has no such file.
    """
    check_options("torchscript", options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit", category=FutureWarning)
        module = torch.jit.load(bundle.file(TORCHSCRIPT), map_location=options.device).eval()
    if (options.device, options.precision) == ("cuda", "float32"):
        check_no_tf32(module)
    return TorchEngine("torchscript", module, bundle, options)


def check_no_tf32(module: torch.jit.ScriptModule) -> None:
    """Raises UnusableNetwork if TF32 was allowed as a convolution was traced: that is a constant of it, above all settings."""
    graph = module.inlined_graph
    for node in graph.findAllNodes("aten::_convolution"):  # type: ignore[attr-defined]
        if list(node.inputs())[-1].toIValue():
            raise UnusableNetwork(
                "model.torchscript.pt would compute float32 in TF32, with 10 bits, as it was exported by an older version: "
                "export the bundle again, or set RANKONE_ENGINE=onnx"
            )
