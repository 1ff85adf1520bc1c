"""One contract for all engines, in every precision they have."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from rankone.model.bundle import MANIFEST, PROGRAM, Bundle, open_bundle
from rankone.model.engine import Engine, EngineError, Outputs, _check, load_engine
from rankone.model.engine.base import EngineName, Precision
from rankone.model.engine.check import MIN_COSINE, check_precision, lowest_cosine, probe
from tests.model.engine.conftest import Pixels

NAMES: tuple[EngineName, ...] = get_args(EngineName)
RUNS: tuple[tuple[EngineName, Precision], ...] = (
    ("onnx", "float32"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("torchscript", "float32"),
    ("torchscript", "bfloat16"),
    ("torchscript", "float16"),
    ("export", "float32"),
    ("export", "bfloat16"),
    ("export", "float16"),
)
CPU = Path("/proc/cpuinfo").read_text(encoding="utf-8")
HAS_BFLOAT16 = not {"avx512_bf16", "amx_bf16"}.isdisjoint(CPU.split())
PROVIDERS = {"onnx": "CPUExecutionProvider", "torchscript": "cpu", "export": "cpu"}
FLOORS = {"float32": 0.99999, "bfloat16": 0.999, "float16": 0.999}


def marks(name: EngineName, precision: Precision = "float32") -> list[pytest.MarkDecorator]:
    """Tests that load OpenVINO run in a process of their own, by `test_openvino.py`. CPUs are slow in float16."""
    if name == "openvino":
        return [pytest.mark.openvino]
    return [pytest.mark.slow] if precision == "float16" else []


@pytest.fixture(scope="module", params=[pytest.param(run, marks=marks(*run), id=f"{run[0]}-{run[1]}") for run in RUNS])
def engine(bundle: Bundle, request: pytest.FixtureRequest) -> Iterator[Engine]:
    name, precision = request.param
    if request.param == ("openvino", "bfloat16") and not HAS_BFLOAT16:
        pytest.skip("this CPU has no units for bfloat16, which the engine then refuses")
    engine = load_engine(bundle, name, "cpu", 2, precision)
    yield engine
    engine.close()


def test_all_engines_answer_alike(engine: Engine, expected: Outputs, pixels: Pixels) -> None:
    """On photographs, at every batch size; the rows of two batches are each other's within the same bound."""
    assert expected.logits is not None
    floor = FLOORS[engine.precision]
    for size in (1, 2, 3, 7):
        found = engine.run(pixels[:size])
        assert found.embedding.dtype == np.float32
        assert found.embedding.shape == (size, 10_000)
        assert lowest_cosine(found.embedding, expected.embedding[:size]) >= floor
        assert found.logits is not None
        assert found.logits.shape == (size, 4)
        assert np.abs(found.logits - expected.logits[:size]).max() < (1e-3 if floor > 0.999 else 5e-2)


def test_a_batch_changes_nothing(engine: Engine, pixels: Pixels) -> None:
    alone = np.concatenate([engine.run(pixels[i : i + 1]).embedding for i in range(3)])
    assert lowest_cosine(engine.run(pixels[:3]).embedding, alone) >= 0.99999


def test_a_list_of_images_is_a_batch(engine: Engine, pixels: Pixels) -> None:
    found, expected = engine.run(list(pixels[:3])), engine.run(pixels[:3])
    assert lowest_cosine(found.embedding, expected.embedding) >= 0.99999


def test_answers_are_the_callers_own(engine: Engine, pixels: Pixels) -> None:
    first = engine.run(pixels[:2])
    kept = first.embedding.copy()
    engine.run(pixels[2:4])
    assert np.array_equal(first.embedding, kept)


def test_an_engine_says_what_it_is(engine: Engine) -> None:
    assert engine.name in NAMES
    assert engine.provider == PROVIDERS.get(engine.name) or f": {engine.provider}" in CPU
    assert engine.precision in MIN_COSINE


def test_at_rest_it_leaves_its_cores_to_others(reference: Engine, pixels: Pixels) -> None:
    """ONNX Runtime's threads look out for more work for tens of milliseconds, if they are let."""
    reference.run(pixels)
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.02


def test_only_the_backbone_is_lowered(bundle: Bundle, pixels: Pixels) -> None:
    """A head in bfloat16 would have 8 bits: its embeddings would be made of few values."""
    engine = load_engine(bundle, "export", "cpu", 2, "bfloat16")
    embedding = torch.from_numpy(engine.run(pixels[:1]).embedding)
    assert (embedding != embedding.bfloat16().float()).float().mean() > 0.9
    in_float32 = load_engine(bundle, "export", "cpu", 2).run(pixels[:1]).embedding
    assert not np.allclose(embedding, in_float32, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("onnx", {"precision": "bfloat16"}, "no convolution in bfloat16.*RANKONE_ENGINE=export"),
        ("onnx", {"precision": "float16"}, "no convolution in float16.*RANKONE_PRECISION=float32"),
        ("onnx", {"cuda_graphs": True}, "need a GPU: set RANKONE_DEVICE=cuda"),
        ("onnx", {"tensorrt_cache": Path("cache")}, "need a GPU: set RANKONE_DEVICE=cuda"),
        ("export", {"cuda_graphs": True}, "need a GPU: set RANKONE_DEVICE=cuda"),
        ("torchscript", {"tensorrt_cache": Path("cache")}, "TensorRT runs the onnx engine only, not torchscript"),
    ],
)
def test_what_cannot_be_honoured_names_what_can(
    bundle: Bundle, name: EngineName, options: dict[str, object], message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        load_engine(bundle, name, "cpu", 2, **options)  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here; see the gpu tests")
@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in NAMES])
def test_a_gpu_that_is_not_there_is_refused_not_replaced(bundle: Bundle, name: EngineName) -> None:
    with pytest.raises(EngineError, match=r"'cuda' was asked for.*RANKONE_DEVICE=cpu"):
        load_engine(bundle, name, "cuda", 1)


def test_a_bundle_of_before_says_that_it_lacks_the_program(bundle: Bundle, tmp_path: Path) -> None:
    old = Path(shutil.copytree(bundle.path, tmp_path / "old", copy_function=os.link))
    manifest = json.loads((old / MANIFEST).read_text())
    for part in ("files", "parity"):
        del manifest[part][PROGRAM]
    (old / MANIFEST).unlink()
    (old / MANIFEST).write_text(json.dumps(manifest))
    (old / PROGRAM).unlink()
    opened = open_bundle(old)
    with pytest.raises(EngineError, match=r"exported before there was a model.pt2.*RANKONE_ENGINE=onnx"):
        load_engine(opened, "export", "cpu", 1)
    assert load_engine(opened, "torchscript", "cpu", 1).run(probe(64)).embedding.shape == (3, 10_000)


class Lossy:
    """An engine that loses what the test says, behind another one."""

    def __init__(self, engine: Engine, loss: float) -> None:
        self._engine, self._loss = engine, loss
        self.name, self.provider, self.precision = "lossy", "cpu", "bfloat16"

    def run(self, images: Pixels):  # type: ignore[no-untyped-def]
        outputs = self._engine.run(images)
        noise = np.random.default_rng(0).standard_normal(outputs.embedding.shape)
        outputs.embedding[-1] += self._loss * noise[-1] / np.linalg.norm(noise[-1])
        return outputs

    def close(self) -> None: ...


@pytest.mark.parametrize(("loss", "kept"), [(0.03, True), (0.06, False), (np.nan, False)])
def test_an_engine_that_loses_too_much_does_not_start(reference: Engine, loss: float, kept: bool) -> None:
    """Noise of length e takes e^2 / 2 off the cosine of one of the three images."""
    lossy: Engine = Lossy(reference, loss)  # type: ignore[assignment]
    if kept:
        assert 0.999 <= check_precision(lossy, reference, 64, 0.999) < 0.9999
    else:
        with pytest.raises(EngineError, match=r"lossy engine in bfloat16.*cosine.*RANKONE_PRECISION=float32"):
            check_precision(lossy, reference, 64, 0.999)


def test_every_lowered_engine_is_checked_as_it_starts(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MIN_COSINE, "bfloat16", 1.1)
    with pytest.raises(EngineError, match="differs from float32 on the CPU"):
        load_engine(bundle, "export", "cpu", 2, "bfloat16")


def test_the_check_leaves_the_engine_its_threads(bundle: Bundle) -> None:
    """On a GPU it takes fewer than it may, where its reference takes all; and both are torch's."""
    before = torch.get_num_threads()
    engine = load_engine(bundle, "export", "cpu", 1)
    try:
        _check(engine, bundle, "export", 2)
        assert torch.get_num_threads() == 1
    finally:
        engine.close()
        torch.set_num_threads(before)


def test_probes_look_like_photographs() -> None:
    """Neighbours are alike, colours go together, and nothing is beyond black and white."""
    images = probe(64)
    assert images.shape == (3, 3, 64, 64)
    assert np.abs(images).max() <= 2.6
    assert all(np.corrcoef(image[:, :, 1:].ravel(), image[:, :, :-1].ravel())[0, 1] > 0.5 for image in images)
    assert all(np.corrcoef(image[0].ravel(), image[1].ravel())[0, 1] > 0.8 for image in images)
    assert np.array_equal(images, probe(64))


OUT_OF_MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from rankone.model.bundle import open_bundle
from rankone.model.engine import EngineOutOfMemory, load_engine

bundle = open_bundle(Path(sys.argv[1]))
for name in ("onnx", "openvino", "torchscript", "export"):
    engine = load_engine(bundle, name, "cpu", 1)
    one = np.ones((1, 3, 64, 64), np.float32)
    before = engine.run(one).embedding
    batch = np.ones((512, 3, 64, 64), np.float32)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20), resource.RLIM_INFINITY))
    try:
        engine.run(batch)
        print(name, "fits")
    except EngineOutOfMemory as error:
        assert error.__cause__ is None and error.__context__ is None, "it keeps the frames of the run, and so its tensors"
        print(name, "refused", np.array_equal(engine.run(one).embedding, before))
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


def test_a_batch_that_does_not_fit_is_told_apart_and_a_smaller_one_runs(bundle: Bundle) -> None:
    """In a process of its own with 300 MB to go, where the first layer alone wants 512 MB."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", OUT_OF_MEMORY, str(bundle.path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.stdout.splitlines() == [f"{name} refused True" for name in NAMES], ended.stderr[-2000:]


def test_onnx_runtime_reports_nothing_to_its_makers(tiny: Bundle, tmp_path: Path) -> None:
    """Since 1.29 it would keep a device's name and a database of events in the home directory, and send them."""
    code = (
        "import sys; from pathlib import Path\n"
        "from rankone.model.bundle import open_bundle; from rankone.model.engine import load_engine\n"
        "load_engine(open_bundle(Path(sys.argv[1])), 'onnx', 'cpu', 1).close()"
    )
    unset = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}  # the first by this process's own import of the engines
    clean = {name: value for name, value in os.environ.items() if name not in unset}
    subprocess.run([sys.executable, "-c", code, tiny.path], env={**clean, "HOME": str(tmp_path)}, check=True)
    assert list(tmp_path.rglob("*")) == []
