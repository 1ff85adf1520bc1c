"""Converts the backbone of an ONNX graph to float16, between two casts; everything behind it stays in float32."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from rankone.model.engine.base import EngineError

try:
    import onnx
    from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
except ImportError as error:
    raise EngineError(
        "the onnx engine on a GPU needs the onnx package: install it, or set RANKONE_DEVICE=cpu"
    ) from error

_SCOPES: Final = "pkg.torch.onnx.name_scopes"
"""Where the exporter notes which modules a node comes from, outermost first."""


def half_precision(path: Path) -> ModelProto:
    """The model in `path`, with the weights and activations of its backbone in float16.

    Raises:
        EngineError: the graph does not say which nodes are the backbone.
    """
    model = onnx.load(path)
    graph = model.graph
    backbone = [node for node in graph.node if in_backbone(node)]
    if not backbone:
        raise EngineError(f"{path} does not say what its backbone is: export the bundle again, or use float32")
    read = {name for node in backbone for name in node.input}
    for weight in graph.initializer:
        if weight.name in read and weight.data_type == TensorProto.FLOAT:
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name))
    into = _Casts({entry.name for entry in graph.input}, TensorProto.FLOAT16)
    out_of = _Casts({name for node in backbone for name in node.output}, TensorProto.FLOAT)
    nodes = [new for node in graph.node for new in (into if in_backbone(node) else out_of).before(node)]
    del graph.node[:], graph.value_info[:]  # the latter says which values were float32
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def in_backbone(node: NodeProto) -> bool:
    """Whether the node comes from the module `backbone`, or from one within it."""
    scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
    return any(scope.split(".")[-1] == "backbone" for scope in ast.literal_eval(scopes))


@dataclass
class _Casts:
    """Inserts casts to type `to` between `values` and the nodes that read them, one for each value."""

    values: Collection[str]
    to: int
    made: set[str] = field(default_factory=set)

    def before(self, node: NodeProto) -> Iterator[NodeProto]:
        """The new casts that `node` needs, then the node itself, which now reads their outputs."""
        for position, value in enumerate(node.input):
            if value not in self.values:
                continue
            node.input[position] = name = f"{value}_as_{TensorProto.DataType.Name(self.to).lower()}"
            if name not in self.made:
                self.made.add(name)
                yield helper.make_node("Cast", [value], [name], to=self.to)
        yield node
