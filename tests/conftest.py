"""What every test may rely on: a fixed seed, real photographs, and a bundle trained on them once a session."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from PIL import Image
from torch.onnx._internal.exporter._registration import ONNXRegistry

import rankone.model.backbone
from benchmarks.bundles import tiny_bundle
from rankone.model import int8_record
from rankone.model.bundle import Bundle, open_bundle
from rankone.model.folders import images_in
from rankone.training import pipeline, quantize
from rankone.training.data import DataSet, load_folder, write_photos
from rankone.training.recipe import Phase, Recipe
from rankone.training.report import canvas
from tests.light import one_layer

pytest_plugins = ["tests.browser", "tests.postgres", "tests.services"]

CLASSES = ("brick", "coins", "grass", "retina")
RECIPE = Recipe(
    weights="random",
    size=64,
    flip=True,
    validation=0.2,
    phase1=Phase(epochs=20, learning_rate=1.0, batch_size=8),
    phase2=Phase(epochs=1, learning_rate=1e-5, batch_size=8),
)
"""The real code path at full size, 512 channels and 10,000 dimensions, on small images."""


# A service's default is a trial, which takes seconds and ends as the machine likes.
os.environ["RANKONE_ENGINE"] = "onnx"
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers share the cores


@pytest.fixture(scope="session", autouse=True)
def _one_registry() -> Iterator[None]:
    """The exporter's table of operators is made once and not for every export, which takes it a second each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
        yield


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every chart is one pixel, which takes no time."""
    draw_nothing(monkeypatch)


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    Image.new("RGB", (1, 1)).save(file, "png")
    patch.setattr(canvas, "_png", lambda *_: file.getvalue())


@pytest.fixture(params=["here", pytest.param("processes", marks=pytest.mark.slow)])
def here(request: pytest.FixtureRequest) -> bool:
    """Whether the commands of a page run in this process; as slow tests, each starts one, as in a user's shell."""
    return bool(request.param == "here")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """One event loop for the whole session, so that the service's workers are started once."""
    return "asyncio"


@pytest.fixture(scope="module")
def light_backbone() -> Iterator[None]:
    """Within the module, `vgg16` is a single layer. Not for modules that use a run or bundle of the whole session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(rankone.model.backbone.BACKBONES, "vgg16", one_layer)
        yield


@pytest.fixture
def light_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the test, `vgg16` is a single layer."""
    monkeypatch.setitem(rankone.model.backbone.BACKBONES, "vgg16", one_layer)


Make = Callable[[Path], object]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Callable[[str, Make], Path]:
    """Makes a folder that all workers of pytest-xdist share: `once(name, make)` calls `make(folder)` in the first of them."""
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "shared"
    shared.mkdir(exist_ok=True)

    def made(name: str, make: Make) -> Path:
        folder, done = shared / name, shared / f".{name}.done"
        with FileLock(shared / f".{name}.lock"):
            if not done.exists():
                make(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def photos_root(once: Callable[[str, Make], Path]) -> Path:
    """All of `photos`, as written."""
    return once("photos", write_photos)


@pytest.fixture(scope="session")
def photos(photos_root: Path, once: Callable[[str, Make], Path]) -> DataSet:
    """Four classes of `photos`, six images to train on and four to test with in each."""

    def choose(root: Path) -> None:
        for split, count in (("train", 6), ("test", 4)):
            for name in CLASSES:
                (root / split / name).mkdir(parents=True)
                for path in images_in(photos_root / split / name)[:count]:
                    shutil.copy(path, root / split / name)

    return load_folder(once("few", choose))


@pytest.fixture(scope="session")
def run_path(photos: DataSet, once: Callable[[str, Make], Path]) -> Path:
    """A finished run on `photos`."""
    return once("run", lambda path: pipeline.train(photos, RECIPE, path))


@pytest.fixture(scope="session")
def bundle(request: pytest.FixtureRequest, photos: DataSet, once: Callable[[str, Make], Path]) -> Bundle:
    """The bundle of that run, measured and exported; RANKONE_TEST_BUNDLE names one that an earlier session left."""
    if kept := os.environ.get("RANKONE_TEST_BUNDLE"):
        return open_bundle(Path(kept))
    run_path: Path = request.getfixturevalue("run_path")

    def export(path: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            draw_nothing(patch)
            pipeline.evaluate(run_path, photos)
        pipeline.export(run_path, photos, path)

    return open_bundle(once("bundle", export))


@pytest.fixture(scope="session")
def int8_bundle(bundle: Bundle, photos: DataSet, once: Callable[[str, Make], Path]) -> Bundle:
    """That bundle with a graph in int8, however much that loses; RANKONE_TEST_INT8 names one."""
    if kept := os.environ.get("RANKONE_TEST_INT8"):
        return open_bundle(Path(kept))

    def make(path: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(quantize, "MIN_IMAGES", 8)
            patch.setattr(int8_record, "LEAST_SAME", 0.5)
            patch.setattr(int8_record, "MOST_LOST", 1.0)
            quantize.quantize(bundle, photos, path)

    return open_bundle(once("int8", make))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose network takes neither time nor room, for tests of everything around it."""
    return tiny_bundle(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture(scope="session")
def images(photos: DataSet) -> list[bytes]:
    """The test photographs as PNG files."""
    return [path.read_bytes() for path in photos.test.paths]
