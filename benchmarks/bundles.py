"""What engines and the service are measured on: photographs, the default network, and a tiny one that costs nothing."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from benchmarks.timing import console
from rankone.model.bundle import ONNX, BackboneRecord, Bundle, Manifest, PoolingRecord, open_bundle, seal, staged
from rankone.model.engine.base import Images
from rankone.model.network import build_network
from rankone.model.preprocessing import Preprocessing, preprocess
from rankone.training.data import evenly_spaced, load_photos
from rankone.training.export import MIN_IMAGES, Description, write_bundle
from rankone.training.recipe import Recipe

TINY_SIZE = 64
TINY_DIM = 10_000


@contextmanager
def bundle_of(path: Path | None) -> Iterator[Bundle]:
    """The bundle in `path`; without one, the default network with random weights, 448 x 448, exported temporarily.

    Raises:
        BundleError: there is no bundle in `path`.
    """
    if path is not None:
        yield open_bundle(path)
        return
    console.print("no --bundle DIR given: exporting the default network with random weights, which takes minutes")
    recipe = Recipe(weights="random")
    description = Description(name="random", version="0", classes=None, metrics={}, dataset=None)
    with tempfile.TemporaryDirectory() as folder:
        images = np.stack([preprocess(jpeg, recipe.preprocessing) for jpeg in jpegs(MIN_IMAGES)])
        yield write_bundle(build_network(weights="random"), recipe, images, Path(folder, "bundle"), description)


def photographs(bundle: Bundle, count: int) -> Images:
    """Photographs preprocessed for the bundle, (count, 3, size, size)."""
    return np.stack([preprocess(jpeg, bundle.manifest.preprocessing) for jpeg in jpegs(count)])


def jpegs(count: int, size: tuple[int, int] = (640, 480)) -> list[bytes]:
    """Photographs as JPEG files, repeated if there are fewer of them."""
    paths = load_photos().test.paths
    files = [_jpeg(paths[i], size) for i in evenly_spaced(len(paths), min(count, len(paths)))]
    return [files[i % len(files)] for i in range(count)]


def _jpeg(path: Path, size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").resize(size).save(file, "JPEG", quality=90)
    return file.getvalue()


def tiny_bundle(path: Path, version: str = "1") -> Bundle:
    """Writes a bundle whose network costs next to nothing: the mean colour times a fixed matrix, scaled to length 1."""
    weights = np.random.default_rng(0).normal(size=(3, TINY_DIM)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["images", "axes"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", "weights"], ["raw"]),
            helper.make_node("LpNormalization", ["raw"], ["embedding"], axis=1, p=2),
        ],
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ("batch", 3, TINY_SIZE, TINY_SIZE))],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ("batch", TINY_DIM))],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array([2, 3], np.int64), "axes")],
    )
    manifest = Manifest(
        name="tiny",
        version=version,
        created=datetime.now(UTC),
        classes=None,
        dim=TINY_DIM,
        pooling=PoolingRecord(system="mean colour", options={}, parts={}),
        backbone=BackboneRecord(name="none", weights="random"),
        preprocessing=Preprocessing(size=TINY_SIZE),
        metrics={},
        recipe={},
        dataset=None,
        libraries={"onnx": onnx.__version__},
        parity={},
    )
    with staged(path) as stage:
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), stage / ONNX)
        return seal(stage, manifest, path)
