"""A program of `torch.export`, the successor of TorchScript, and what is checked before torch opens its `.pt2`.

`torch.export.load` unpickles what the archive declares as pickled, evaluates its shapes with `sympify`, and looks up its
operators in all of torch. A bundle's checksums do not say who made the file. So anything but weights and a graph of plain
operators is refused; our own exports contain no pickle.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile, ZipFile

import torch
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from rankone.model.bundle import Manifest
from rankone.model.engine.base import Options, UnusableNetwork
from rankone.model.engine.torch_engine import TorchEngine, check_options

_CONFIG: Final = re.compile(r"data/(weights|constants)/\w+_config\.json")
_GRAPH: Final = "models/model.json"
_DATA: Final = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|archive_format|archive_version|byteorder|\.data/\w+"
)
_INPUTS: Final = "data/sample_inputs/model.pt"
_OPERATOR: Final = re.compile(r"torch\.ops\.aten\.\w+\.\w+|_operator\.(add|sub|mul|floordiv|getitem|ge|le|eq)")
_SYMBOL: Final = re.compile(r"Symbol\('\w+'(, (positive|integer)=True)*\)")
_ARITHMETIC: Final = re.compile(r"(?:\b(?:Add|Mul|Integer)\b|[\d\s()+*/,-])*")
"""What is left of a shape without its symbols, as SymPy writes it: `Mul(Integer(9), )`."""


def export_engine(path: Path, options: Options, manifest: Manifest) -> TorchEngine:
    """A `model.pt2`.

    Raises:
        EngineError: the options are not supported.
        UnusableNetwork: see `check_archive`.
    """
    check_options("export", options)
    check_archive(path)
    program = move_to_device_pass(torch.export.load(path), options.device)
    return TorchEngine("export", module_of(program), options, manifest)


def module_of(program: ExportedProgram) -> torch.nn.Module:
    """The program as a module that runs in any precision: the checks for the precision of the trace are removed."""
    module = program.module(check_guards=False)
    for node in module.graph.find_nodes(op="call_function", target=torch.ops.aten._assert_tensor_metadata.default):
        module.graph.erase_node(node)
    module.recompile()
    return module


def check_archive(path: Path) -> None:
    """Raises UnusableNetwork if the archive contains pickles, code, other operators, or files of an unknown kind."""
    try:
        with ZipFile(path) as archive:
            for entry in archive.infolist():
                name = entry.filename.partition("/")[2]
                if found := _objection(archive, entry.filename, name, entry.file_size):
                    raise UnusableNetwork(
                        f"{path} is not opened: {found}. Use RANKONE_ENGINE=onnx, or export the bundle again"
                    )
    except (BadZipFile, ValueError) as error:
        raise UnusableNetwork(f"{path} is not an archive of torch.export: {error}") from error


def _objection(archive: ZipFile, full: str, name: str, size: int) -> str | None:
    if _CONFIG.fullmatch(name):
        pickled = any(_values(json.loads(archive.read(full)), "use_pickle"))
        return f"{name} names pickled objects" if pickled else None
    if name == _GRAPH:
        return _objection_to_graph(json.loads(archive.read(full)))
    if name == _INPUTS:
        return f"{name} is a pickle" if size else None
    return None if _DATA.fullmatch(name) else f"it holds {name}"


def _objection_to_graph(graph: Any) -> str | None:
    if guards := graph.get("guards_code"):
        return f"its graph contains code, {guards[0]!r}"
    for operator in _values(graph, "target"):
        if isinstance(operator, str) and not _OPERATOR.fullmatch(operator):
            return f"its graph calls {operator}"
    for expression in _values(graph, "expr_str"):
        if not _ARITHMETIC.fullmatch(_SYMBOL.sub("", expression)):
            return f"a shape in its graph is {expression!r}"
    return None


def _values(tree: Any, key: str) -> Iterator[Any]:
    """Every value of `key` at any depth."""
    if isinstance(tree, dict):
        if key in tree:
            yield tree[key]
        tree = tree.values()
    elif not isinstance(tree, list):
        return
    for branch in tree:
        yield from _values(branch, key)
