"""A bundle whose network costs next to nothing: what is left of a request then is the server's own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rankone.model.bundle import ONNX, BackboneRecord, Bundle, Manifest, PoolingRecord, seal, staged
from rankone.model.preprocessing import Preprocessing

SIZE: Final = 64
DIM: Final = 10_000


def tiny_bundle(path: Path, version: str = "1") -> Bundle:
    """Writes one: the mean colour of an image times a fixed matrix, scaled to length 1."""
    weights = np.random.default_rng(0).normal(size=(3, DIM)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["images", "axes"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", "weights"], ["raw"]),
            helper.make_node("LpNormalization", ["raw"], ["embedding"], axis=1, p=2),
        ],
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ("batch", 3, SIZE, SIZE))],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ("batch", DIM))],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array([2, 3], np.int64), "axes")],
    )
    exported = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    manifest = Manifest(
        name="tiny",
        version=version,
        created=datetime.now(UTC),
        classes=None,
        dim=DIM,
        pooling=PoolingRecord(system="mean colour", options={}, parts={}),
        backbone=BackboneRecord(name="none", weights="random"),
        preprocessing=Preprocessing(size=SIZE),
        metrics={},
        recipe={},
        dataset=None,
        libraries={"onnx": onnx.__version__},
        parity={},
    )
    with staged(path) as stage:
        onnx.save(exported, stage / ONNX)
        return seal(stage, manifest, path)
