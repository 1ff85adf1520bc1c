"""What is refused of a `.pt2` before torch opens it: anything that could be more than weights and a graph of plain operators.

`torch.export.load` unpickles whatever an archive says is pickled, evaluates its shapes by `sympify`, and looks the names
of its operators up in all of torch. A bundle's checksums say that the file is the one its maker wrote, not who that
was. The archives of our own export hold no pickle, and nothing of the kind that is refused here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile, ZipFile

from rankone.model.engine.base import UnusableNetwork

_CONFIG: Final = re.compile(r"data/(weights|constants)/\w+_config\.json")
_GRAPH: Final = "models/model.json"
_DATA: Final = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|archive_format|archive_version|byteorder|\.data/\w+"
)
_INPUTS: Final = "data/sample_inputs/model.pt"
_OPERATOR: Final = re.compile(r"torch\.ops\.aten\.\w+\.\w+|_operator\.(add|sub|mul|floordiv|getitem|ge|le|eq)")
_SYMBOL: Final = re.compile(r"Symbol\('\w+'(, (positive|integer)=True)*\)")
_ARITHMETIC: Final = re.compile(r"[\d\s()+*/-]*")


def check_archive(path: Path) -> None:
    """Raises UnusableNetwork where the archive holds pickles, code, foreign operators or files of an unknown kind."""
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
        return f"its graph brings code along, {guards[0]!r}"
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
