"""What runs on a GPU, here on the CPU: the same buffers, bindings and graphs; and, where there is a GPU, there."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto

from rankone.model.bundle import ONNX, PROGRAM, TORCHSCRIPT, Bundle
from rankone.model.engine import Engine, EngineError, EngineOutOfMemory, Outputs, load_engine
from rankone.model.engine.base import EngineName, Options, Precision
from rankone.model.engine.buffers import BufferedRunner, Buffers, Step
from rankone.model.engine.check import lowest_cosine
from rankone.model.engine.export import export_engine
from rankone.model.engine.onnx_gpu import binder, with_cache_of
from rankone.model.engine.onnx_half import half_precision, in_backbone
from rankone.model.engine.providers import CUDA, TENSORRT, check_providers, gpu_providers, open_session
from rankone.model.engine.torch_engine import check_no_tf32, torchscript_engine
from tests.conftest import CLASSES
from tests.model.engine.conftest import Pixels

CPU = torch.device("cpu")
ON_GPU: tuple[tuple[EngineName, Precision], ...] = (
    ("onnx", "float32"),
    ("onnx", "float16"),
    ("torchscript", "float32"),
    ("torchscript", "float16"),
    ("torchscript", "bfloat16"),
    ("export", "float32"),
    ("export", "float16"),
    ("export", "bfloat16"),
)
FLOORS = {"float32": 0.9999, "float16": 0.999, "bfloat16": 0.999}


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """As many as before, for all tests that follow."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def halved(bundle: Bundle) -> onnx.ModelProto:
    return half_precision(bundle.file(ONNX))


def session_of(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def through_buffers(bundle: Bundle, prepare: Callable[[Buffers], Step]) -> BufferedRunner:
    return BufferedRunner(bundle.manifest, CPU, None, torch.get_num_threads(), prepare)


def same(found: Outputs, expected: Outputs, rows: slice, floor: float) -> None:
    assert lowest_cosine(found.embedding, expected.embedding[rows]) >= floor
    assert found.logits is not None
    assert expected.logits is not None
    assert np.abs(found.logits - expected.logits[rows]).max() < 5e-2


@pytest.mark.parametrize("sizes", [(7, 3, 1, 3), (1, 3, 7, 3)], ids=["largest first", "growing"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_onnx_bound_to_buffers(
    bundle: Bundle, pixels: Pixels, expected: Outputs, halved: onnx.ModelProto, precision: str, sizes: tuple[int, ...]
) -> None:
    """Whatever was in the buffers before: each batch is other images than the last."""
    session = session_of(halved if precision == "float16" else onnx.load(bundle.file(ONNX)))
    runner = through_buffers(bundle, binder(session, cuda_graphs=False))
    for turn, size in enumerate(sizes):
        rows = slice(turn, turn + size)
        same(runner.run(pixels[rows]), expected, rows, 0.99999 if precision == "float32" else 0.999)


@pytest.mark.parametrize(("open_engine", "file"), [(torchscript_engine, TORCHSCRIPT), (export_engine, PROGRAM)])
def test_torch_through_buffers(bundle: Bundle, pixels: Pixels, expected: Outputs, open_engine: Any, file: str) -> None:
    engine = open_engine(bundle.file(file), Options(device="cpu", threads=2, precision="float16"), bundle.manifest)
    runner = through_buffers(bundle, engine.prepare)
    for turn, size in enumerate((3, 1, 7, 3)):
        rows = slice(turn, turn + size)
        same(runner.run(list(pixels[rows])), expected, rows, 0.999)


def test_buffers_are_prepared_once_and_keep_their_addresses(bundle: Bundle, pixels: Pixels) -> None:
    """Smaller batches live in the memory of the largest; only a larger one than ever moves them."""
    prepared: list[tuple[int, int]] = []

    def prepare(buffers: Buffers) -> Step:
        prepared.append((len(buffers.images), buffers.images.data_ptr()))
        return lambda: [buffer.fill_(len(buffers.images)) for buffer in buffers.outputs.values()]

    runner = through_buffers(bundle, prepare)
    for size in (4, 2, 4, 2, 5, 2):
        found = runner.run(pixels[:size])
        assert found.embedding.shape == (size, 10_000)
        assert found.logits is not None
        assert found.logits.shape == (size, len(CLASSES))
        assert (found.embedding == size).all()
        assert (found.logits == size).all()
    assert [size for size, _ in prepared] == [4, 2, 5, 2]
    assert prepared[0][1] == prepared[1][1]
    assert prepared[2][1] == prepared[3][1]
    kept = runner.run(pixels[:2])
    runner.run(pixels[:5])
    assert (kept.embedding == 2).all(), "an answer must not change with the next batch"


def test_a_closed_runner_keeps_no_memory(bundle: Bundle, pixels: Pixels) -> None:
    """A session holds gigabytes of a card, which the engine that comes next may need."""
    session = session_of(onnx.load(bundle.file(ONNX)))
    held = weakref.ref(session)
    runner = through_buffers(bundle, binder(session, cuda_graphs=False))
    del session
    runner.run(pixels[:1])
    assert held() is not None
    runner.close()
    assert held() is None


@pytest.mark.parametrize(("allowed", "copying"), [(1, 1), (3, 3), (16, 4)])
def test_pixels_are_copied_by_no_more_threads_than_help(bundle: Bundle, allowed: int, copying: int) -> None:
    BufferedRunner(bundle.manifest, CPU, None, allowed, lambda _: lambda: None)
    assert torch.get_num_threads() == copying


def test_torchscript_that_was_traced_with_tf32_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    """It is a constant of every convolution, which no setting reaches: on a GPU it made float32 twice as fast as it can be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = torch.jit.load(bundle.file(TORCHSCRIPT))
        check_no_tf32(ours)
        graph = ours.inlined_graph
        uses_cudnn = [list(node.inputs())[-2].toIValue() for node in graph.findAllNodes("aten::_convolution")]
        assert uses_cudnn == [True] * 13
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
            traced = torch.jit.trace(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), torch.zeros(1, 3, 8, 8))
        traced.save(tmp_path / "old.pt")
        with pytest.raises(EngineError, match="in TF32.*export the bundle again"):
            check_no_tf32(torch.jit.load(tmp_path / "old.pt"))


def test_only_the_backbone_of_a_graph_is_halved(bundle: Bundle, halved: onnx.ModelProto) -> None:
    types = {weight.name: weight.data_type for weight in halved.graph.initializer}
    backbone = {name for name in types if ".backbone." in f".{name}"}
    assert len(backbone) == 26
    assert {types[name] for name in backbone} == {TensorProto.FLOAT16}
    assert TensorProto.FLOAT16 not in {types[name] for name in types.keys() - backbone}
    casts = [node for node in halved.graph.node if node.op_type == "Cast"]
    assert [list(node.output) for node in casts] == [["images_as_float16"], ["relu_12_as_float"]]
    whole = onnx.load(bundle.file(ONNX))
    assert [node.op_type for node in halved.graph.node if node not in casts] == [
        node.op_type for node in whole.graph.node
    ]


def test_a_graph_that_does_not_tell_its_backbone_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    model = onnx.load(bundle.file(ONNX))
    for node in model.graph.node:
        del node.metadata_props[:]
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(EngineError, match="does not say what its backbone is: export the bundle again"):
        half_precision(tmp_path / "model.onnx")


def test_providers_of_a_gpu(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No TF32 in either; TensorRT gets the backbone and nothing of the head, and one profile for every batch."""
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    model = onnx.load(bundle.file(ONNX))
    ((name, cuda),) = gpu_providers(model, Options(device="cuda", threads=2, cuda_graphs=True), 7)
    assert name == CUDA
    assert (cuda["use_tf32"], cuda["enable_cuda_graph"], cuda["user_compute_stream"]) == ("0", "1", "7")
    assert "prefer_nhwc" not in cuda
    ((_, half),) = gpu_providers(model, Options(device="cuda", threads=2, precision="float16"), 7)
    changed = {"enable_cuda_graph": "0", "prefer_nhwc": "1", "cudnn_conv_algo_search": "HEURISTIC"}
    assert half == {**cuda, **changed}
    options = Options(
        device="cuda", threads=2, precision="float16", tensorrt_cache=tmp_path / "new" / "cache", max_batch=32
    )
    (first, tensorrt), (second, cuda) = gpu_providers(model, options, 7)
    assert (first, second) == (TENSORRT, CUDA)
    assert (tmp_path / "new" / "cache").is_dir()
    excluded = set(tensorrt["trt_op_types_to_exclude"].split(","))
    nodes = model.graph.node
    assert excluded == {node.op_type for node in nodes} - {"Conv", "Relu", "MaxPool"}
    assert {node.op_type for node in nodes if in_backbone(node)} == {"Conv", "Relu", "MaxPool"}
    assert tensorrt["trt_profile_max_shapes"] == "images:32x3x64x64"
    assert tensorrt["trt_profile_min_shapes"] == "images:1x3x64x64"
    assert tensorrt["trt_fp16_enable"] is True
    assert cuda["use_tf32"] == "0"
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"


def test_tensorrt_never_takes_another_bundles_engine(bundle: Bundle, tmp_path: Path) -> None:
    """Its cache goes by the graph: a bundle trained on would be served with the weights of the one before."""
    options = Options(device="cuda", threads=2, precision="float16", tensorrt_cache=tmp_path)
    other = bundle.model_copy(update={"fingerprint": "0" * 64})
    folders = {
        with_cache_of(b, o).tensorrt_cache
        for b in (bundle, other)
        for o in (options, replace(options, precision="float32"))
    }
    assert len(folders) == 4
    assert all(folder is not None and folder.parent == tmp_path for folder in folders)


def test_a_session_on_other_providers_is_refused(bundle: Bundle) -> None:
    session = session_of(onnx.load(bundle.file(ONNX)))
    with pytest.raises(
        EngineError, match=r"CUDAExecutionProvider was asked for, but ONNX Runtime runs on CPUExecution"
    ):
        check_providers(session, [CUDA])
    check_providers(session, ["CPUExecutionProvider"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_provider_that_does_not_load_is_an_error(bundle: Bundle, capfd: pytest.CaptureFixture[str]) -> None:
    """ONNX Runtime itself would print a line and go on with the CPU."""
    with pytest.raises(EngineError, match="CUDAExecutionProvider.*nvidia-smi.*RANKONE_DEVICE=cpu"):
        open_session(onnx.load(bundle.file(ONNX)), Options(device="cuda", threads=1), 0)
    assert "Falling back" not in capfd.readouterr().out


def test_heavy_operators_off_the_gpu_are_refused(bundle: Bundle) -> None:
    class Partly:
        """A session that says it has CUDA, and runs everything on the CPU all the same."""

        def __init__(self) -> None:
            self.real = session_of(onnx.load(bundle.file(ONNX)))

        def get_providers(self) -> list[str]:
            return [CUDA, "CPUExecutionProvider"]

        def get_provider_graph_assignment_info(self) -> Any:
            return self.real.get_provider_graph_assignment_info()

    with pytest.raises(EngineError, match="keeps Conv, Gemm, MatMul, MaxPool, ScatterElements off the GPU"):
        check_providers(Partly(), [CUDA])
    with pytest.raises(EngineError, match="gives nothing to CUDAExecutionProvider"):
        check_providers(Partly(), [CUDA, "CPUExecutionProvider"])


PRELOAD = """
import ctypes
from rankone.model.engine.providers import preload_libraries
preload_libraries()
for library in ("libcurand.so.10", "libcublas.so.13", "libcublasLt.so.13", "libcudart.so.13", "libcudnn.so.9"):
    ctypes.CDLL(library)
"""


def test_every_library_that_the_cuda_provider_needs_is_found() -> None:
    """In a process of its own, as loaded libraries stay. All but the driver's, which comes with the card."""
    ended = subprocess.run([sys.executable, "-c", PRELOAD], check=False, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr[-1000:]


@pytest.mark.gpu
@pytest.mark.parametrize("cuda_graphs", [False, True], ids=["", "graphs"])
@pytest.mark.parametrize(("name", "precision"), ON_GPU)
def test_the_gpu_agrees_with_the_cpu(
    bundle: Bundle, pixels: Pixels, expected: Outputs, name: EngineName, precision: Precision, cuda_graphs: bool
) -> None:
    engine = load_engine(bundle, name, "cuda", 2, precision, cuda_graphs=cuda_graphs)
    assert "CUDA" in engine.provider or "NVIDIA" in engine.provider
    for turn, size in enumerate((7, 3, 1, 7, 9, 3)):
        rows = slice(turn, turn + size)
        same(engine.run(pixels[rows]), expected, rows, FLOORS[precision])
    engine.close()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_tensorrt_agrees_with_the_cpu(
    bundle: Bundle, pixels: Pixels, expected: Outputs, precision: Precision, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_libs")
    engine = load_engine(bundle, "onnx", "cuda", 2, precision, tensorrt_cache=tmp_path, max_batch=7)
    assert engine.provider == TENSORRT
    for size in (7, 3, 1):
        same(engine.run(pixels[:size]), expected, slice(size), FLOORS[precision])
    assert any(tmp_path.rglob("*.engine"))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["onnx", "torchscript", "export"])
def test_a_gpu_out_of_memory_is_told_apart(bundle: Bundle, pixels: Pixels, name: EngineName) -> None:
    engine: Engine = load_engine(bundle, name, "cuda", 2)
    free, _ = torch.cuda.mem_get_info()
    hog = torch.empty(free - (200 << 20), dtype=torch.uint8, device="cuda")
    try:
        with pytest.raises(EngineOutOfMemory):
            engine.run(np.zeros((512, 3, 64, 64), np.float32))
    finally:
        del hog
        torch.cuda.empty_cache()
    assert engine.run(pixels[:1]).embedding.shape == (1, 10_000)
