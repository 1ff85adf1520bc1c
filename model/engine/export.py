"""A program of `torch.export`, the successor of TorchScript, run by torch operator by operator."""

from __future__ import annotations

import torch
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from rankone.model.bundle import PROGRAM, Bundle
from rankone.model.engine.archive import check_archive
from rankone.model.engine.base import Options, UnusableNetwork
from rankone.model.engine.torch_engine import TorchEngine, check_options


def export_engine(bundle: Bundle, options: Options) -> TorchEngine:
    """The bundle's `model.pt2`.

    Raises:
        EngineError: the options cannot be honoured.
        UnusableNetwork: the bundle has no such file, or one that is not opened (see `archive`).
    """
    check_options("export", options)
    if PROGRAM not in bundle.manifest.files:
        raise UnusableNetwork(
            f"{bundle.path} was exported before there was a {PROGRAM}, which the export engine runs: export it again "
            "(rankone export), or set RANKONE_ENGINE=onnx"
        )
    path = bundle.file(PROGRAM)
    check_archive(path)
    program = move_to_device_pass(torch.export.load(path), options.device)
    return TorchEngine("export", module_of(program), bundle, options)


def module_of(program: ExportedProgram) -> torch.nn.Module:
    """The program as a module that takes any precision, as the network did: traced in float32, it would insist on it."""
    module = program.module(check_guards=False)
    for node in module.graph.find_nodes(op="call_function", target=torch.ops.aten._assert_tensor_metadata.default):
        module.graph.erase_node(node)
    module.recompile()
    return module
