"""What only the OpenVINO engine has: in bfloat16, a network cut in two; and a package that must not be loaded.

`test_openvino.py` runs these in a process of their own.
"""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import openvino
import pytest

from rankone.model import int8_record
from rankone.model.bundle import ONNX, Bundle
from rankone.model.engine import EngineError, Outputs, UnusableNetwork, load_engine
from rankone.model.engine import openvino as engine
from rankone.model.engine.base import Options
from rankone.model.engine.check import MIN_COSINE, lowest_cosine
from rankone.model.engine.openvino import OpenVinoEngine, check_options, core, split
from tests.model.engine.conftest import Pixels
from tests.model.engine.test_engine import HAS_BFLOAT16

pytestmark = pytest.mark.openvino

LOW = Options(device="cpu", threads=2, precision="bfloat16")
needs_bfloat16 = pytest.mark.skipif(not HAS_BFLOAT16, reason="this CPU has no units for bfloat16")


@pytest.fixture(scope="module")
def lowered(bundle: Bundle) -> Iterator[OpenVinoEngine]:
    loaded = OpenVinoEngine(bundle.file(ONNX), LOW)
    yield loaded
    loaded.close()


@pytest.fixture
def model(bundle: Bundle) -> openvino.Model:
    return core().read_model(bundle.file(ONNX))


def run(model: openvino.Model, *inputs: object, precision: str = "f32") -> list[Pixels]:
    found = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})(list(inputs))
    return [found[position] for position in range(len(model.outputs))]


def test_a_network_is_cut_behind_the_last_weights_of_its_backbone(model: openvino.Model, pixels: Pixels) -> None:
    """Backbone and head together are the whole, and no weight of the backbone is left to the head."""
    whole = run(model, pixels[:3])
    backbone, head = split(model)

    def weights(part: openvino.Model) -> set[str]:
        nodes = [node for node in part.get_ordered_ops() if node.get_type_name() == "Constant"]
        return {node.get_friendly_name() for node in nodes if node.get_friendly_name().startswith("network.")}

    assert len(weights(backbone)) == 26
    assert all(".backbone." in name for name in weights(backbone))
    assert not any(".backbone." in name for name in weights(head))
    assert {name.split(".")[1] for name in weights(head)} == {"pooling", "classifier", "short"}
    (local,) = run(backbone, pixels[:3])
    assert local.shape == (3, 512, 4, 4)
    for found, expected in zip(run(head, pixels[:3], local), whole, strict=True):
        assert np.abs(found - expected).max() < 1e-5


@needs_bfloat16
def test_only_the_backbone_is_lowered(
    lowered: OpenVinoEngine, model: openvino.Model, bundle: Bundle, pixels: Pixels
) -> None:
    """The embedding is that of a head in float32 on the backbone's own output, and not one of 8 bits."""
    found = lowered.run(pixels[:3]).embedding
    backbone, head = split(model)
    (local,) = run(backbone, pixels[:3], precision="bf16")
    names = [output.get_any_name() for output in head.outputs]
    expected = dict(zip(names, run(head, pixels[:3], local), strict=True))["embedding"]
    assert lowest_cosine(found, expected) >= 0.999999
    in_float32 = load_engine(bundle, "openvino", "cpu", 2).run(pixels[:3]).embedding
    assert not np.allclose(found, in_float32, atol=1e-6)


def test_float32_is_not_lowered_where_that_is_faster(bundle: Bundle, pixels: Pixels, expected: Outputs) -> None:
    """OpenVINO takes bfloat16 by itself on a CPU that has it."""
    found = load_engine(bundle, "openvino", "cpu", 2).run(pixels).embedding
    assert np.abs(found - expected.embedding).max() < 1e-4


def test_features_come_only_when_they_are_asked_for(bundle: Bundle, pixels: Pixels, expected: Outputs) -> None:
    loaded = load_engine(bundle, "openvino", "cpu", 2)
    assert loaded.run(pixels[:2]).features is None
    found = loaded.run(pixels[:2], features=True)
    assert found.features is not None
    assert found.features.shape == (2, 16, 512)
    assert found.short is not None
    assert expected.short is not None
    assert lowest_cosine(found.short, expected.short[:2]) >= 0.99999


def test_a_network_that_does_not_tell_its_backbone_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    model = onnx.load(bundle.file(ONNX))
    for weight in model.graph.initializer:
        weight.name = weight.name.replace("backbone", "trunk")
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = name.replace("backbone", "trunk")
    onnx.save(model, tmp_path / ONNX)
    with pytest.raises(EngineError, match="does not say what its backbone is: export the bundle again"):
        split(core().read_model(tmp_path / ONNX))


@pytest.mark.parametrize(
    ("flags", "has_units"),
    [
        ("avx512f avx512_bf16", True),
        ("avx512f amx_tile amx_bf16", True),
        ("avx2 avx_ne_convert", True),
        ("avx2 avx512f avx512_vnni", False),  # OpenVINO would emulate it
        ("avx2", False),
    ],
)
def test_bfloat16_without_units_for_it_is_refused(flags: str, has_units: bool, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: fpu {flags} sse\nbugs\t\t:\n")
    check_options(Options(device="cpu", threads=2), cpuinfo)
    if has_units:
        check_options(LOW, cpuinfo)
        return
    with pytest.raises(EngineError, match="no units for bfloat16.*slower than float32: set RANKONE_PRECISION=float32"):
        check_options(LOW, cpuinfo)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "float16"}, "has no float16: set RANKONE_PRECISION=float32"),
        ({"cuda_graphs": True}, "need a GPU: leave RANKONE_CUDA_GRAPHS"),
        ({"tensorrt_cache": Path("cache")}, "need a GPU: leave RANKONE_CUDA_GRAPHS"),
    ],
)
def test_what_cannot_be_honoured_names_what_can(bundle: Bundle, options: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        load_engine(bundle, "openvino", "cpu", 2, **options)


def test_where_linux_does_not_tell_openvino_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for capabilities, has_units in ((["FP32", "BF16"], True), (["FP32"], False)):
        known = SimpleNamespace(get_property=lambda *_, found=capabilities: found)
        monkeypatch.setattr(engine, "core", lambda core=known: core)
        if has_units:
            check_options(LOW, tmp_path / "none")
        else:
            with pytest.raises(EngineError, match="no units for bfloat16"):
                check_options(LOW, tmp_path / "none")


@needs_bfloat16
def test_bfloat16_is_compared_with_onnx_runtime_as_it_starts(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MIN_COSINE, "bfloat16", 1.1)
    with pytest.raises(EngineError, match=r"openvino engine in bfloat16 on .* differs from float32 on the CPU"):
        load_engine(bundle, "openvino", "cpu", 2, "bfloat16")


def test_a_backbone_in_int8_answers_as_by_onnx_runtime(
    int8_bundle: Bundle, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8_record, "LEAST_SAME", 0.5)
    monkeypatch.setattr(int8_record, "MOST_LOST", 1.0)
    found = load_engine(int8_bundle, "openvino", "cpu", 2, "int8")
    assert found.precision == "int8"
    expected = load_engine(int8_bundle, "onnx", "cpu", 2, "int8").run(pixels)
    exact = load_engine(int8_bundle, "onnx", "cpu", 2).run(pixels)
    answers = found.run(pixels)
    assert lowest_cosine(answers.embedding, exact.embedding) < 0.9999  # it does not compute in float32
    assert lowest_cosine(answers.embedding, expected.embedding) > lowest_cosine(expected.embedding, exact.embedding)


def test_a_file_that_is_no_network_is_named_by_what_is_wrong_with_it(bundle: Bundle, tmp_path: Path) -> None:
    """OpenVINO's own first line says where in its source it noticed."""
    (tmp_path / ONNX).write_bytes(b"\x08\x0a")
    with pytest.raises(UnusableNetwork, match="openvino engine cannot run the network in .*: Unable to read the model"):
        load_engine(bundle.model_copy(update={"path": tmp_path}), "openvino", "cpu", 1)


def test_nothing_is_reported_to_its_makers(tmp_path: Path) -> None:
    """`import openvino` uses a package for that, where there is one; here it would say so."""
    (tmp_path / "openvino_telemetry").mkdir()
    (tmp_path / "openvino_telemetry" / "__init__.py").write_text("raise SystemExit('reports')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {{}}; print('silent')"

    def said(module: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-c", code.format(module)], check=False, capture_output=True, text=True, timeout=60
        )
        return ended.stdout + ended.stderr

    assert said("rankone.model.engine.openvino") == "silent\n"
    assert "reports" in said("openvino"), "it no longer reports: is this still needed?"


def test_the_check_needs_no_torch(bundle: Bundle) -> None:
    """Which the image for CPUs does not have."""
    code = (
        "import sys; sys.modules['torch'] = None; from pathlib import Path\n"
        "from rankone.model.bundle import open_bundle; from rankone.model.engine import load_engine\n"
        f"engine = load_engine(open_bundle(Path({str(bundle.path)!r})), 'openvino', 'cpu', 2, {LOW.precision!r})\n"
        "print(engine.precision)"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert ended.stdout == "bfloat16\n" or not HAS_BFLOAT16, ended.stderr[-2000:]


def test_a_closed_engine_holds_nothing(bundle: Bundle, pixels: Pixels) -> None:
    """Network, kernels and buffers go at once, not when the garbage is collected; and it does not come back to life."""
    loaded = OpenVinoEngine(bundle.file(ONNX), Options(device="cpu", threads=2))
    loaded.run(pixels[:2])
    held = [weakref.ref(part) for part in (*loaded._parts, *(model for model, _ in loaded._models))]
    assert len(held) == 2
    gc.disable()
    try:
        loaded.close()
        assert [one() for one in held] == [None, None]
    finally:
        gc.enable()
    with pytest.raises(IndexError):
        loaded.run(pixels[:2])


def test_a_bundle_that_is_overwritten_does_not_end_the_process(bundle: Bundle, tmp_path: Path) -> None:
    """A file that is mapped into memory would: reading behind its new end is SIGBUS."""
    path = Path(shutil.copy(bundle.file(ONNX), tmp_path))
    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from rankone.model.engine.base import Options; from rankone.model.engine.openvino import OpenVinoEngine\n"
        "path, images = Path(sys.argv[1]), np.zeros((2, 3, 64, 64), np.float32)\n"
        "engine = OpenVinoEngine(path, Options(device='cpu', threads=2))\n"
        "before = engine.run(images).embedding\n"
        "path.write_bytes(b'short'); engine._parts = []\n"  # so that the network is compiled again
        "print(np.array_equal(before, engine.run(images).embedding))"
    )
    ended = subprocess.run([sys.executable, "-c", code, path], check=False, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "True\n"), ended.stderr[-2000:]
