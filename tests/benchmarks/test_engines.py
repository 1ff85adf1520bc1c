"""What the benchmarks of engines do, on the CPU and at a small size. Nothing is asserted of their speed."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import rankone.model.backbone
from benchmarks import bundles, engines, gpu, timing
from benchmarks.gpu import Ceilings, NoGPU, Row
from benchmarks.timing import Call, Timing
from rankone.cli.bench import bench
from rankone.model.bundle import Bundle
from rankone.model.engine import Engine, Outputs, load_engine
from rankone.model.engine.base import Images
from rankone.model.network import open_network
from rankone.model.preprocessing import preprocess
from tests.light import one_layer


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Console:
    recording = Console(record=True, width=160, file=io.StringIO())
    for module in (bundles, engines, gpu, timing):
        monkeypatch.setattr(module, "console", recording)
    return recording


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Engine:
    return load_engine(bundle, "onnx", "cpu", 2)


def test_engines_are_told_apart_by_speed_and_cosine(
    bundle: Bundle, engine: Engine, images: list[bytes], console: Console
) -> None:
    pixels = np.stack([preprocess(image, bundle.manifest.preprocessing) for image in images[:2]])
    lowered = load_engine(bundle, "export", "cpu", 2, "bfloat16")
    timings = engines.measure({"onnx float32": engine, "export bfloat16": lowered}, pixels, rounds=2)
    assert timings.keys() == {"onnx float32", "export bfloat16"}
    rows = [line for line in console.export_text().splitlines() if "float" in line and "│" in line]
    cosines = {line.split("│")[1].strip(): float(line.split("│")[-2]) for line in rows}
    assert cosines["onnx float32"] == 1
    assert 0.999 <= cosines["export bfloat16"] < 0.99999


def test_a_hopeless_engine_is_run_once(
    engine: Engine, images: list[bytes], bundle: Bundle, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.stack([preprocess(image, bundle.manifest.preprocessing) for image in images[:2]])
    slow, num_runs = load_engine(bundle, "onnx", "cpu", 2), 0
    run = slow.run

    def slowly(given: Images) -> Outputs:
        nonlocal num_runs
        num_runs += 1
        time.sleep(60 * engine_s)
        return run(given)

    monkeypatch.setattr(slow, "run", slowly)
    started = time.perf_counter()
    engine.run(pixels)
    engine_s = time.perf_counter() - started
    timings = engines.measure({"onnx float32": engine, "slow float32": slow}, pixels, rounds=2)
    assert num_runs == 1
    assert timings["slow float32"].median > timings["onnx float32"].median
    assert "batch 2, 2 rounds (slow float32: one)" in console.export_text()


def test_the_advice_is_what_to_set() -> None:
    slow, fast = Timing(0.1, 0.2, 0.3), Timing(0.05, 0.1, 0.15)
    assert engines.advice({"onnx float32": slow, "export bfloat16": fast}, 4) == (
        "fastest at batch 4: export bfloat16, 2.0 x faster than onnx float32: RANKONE_ENGINE=export RANKONE_PRECISION=bfloat16"
    )
    assert engines.advice({"onnx float32": fast, "export bfloat16": slow}, 1) == (
        "fastest at batch 1: onnx float32: RANKONE_ENGINE=onnx RANKONE_PRECISION=float32"
    )


def test_the_best_that_a_device_can_do_is_measured_in_its_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a second for everything: two operations a multiply-add, and a copy reads and writes."""

    def a_second(calls: Mapping[str, Call], *_: object, **__: object) -> dict[str, Timing]:
        for call in calls.values():
            call()
        return dict.fromkeys(calls, Timing(1, 1, 1))

    monkeypatch.setattr(gpu, "compare", a_second)
    found = gpu.measure_ceilings("cpu", side=16, num_bytes=1000)
    assert found.product == {"float32": 2 * 16**3, "bfloat16": 2 * 16**3, "float16": 2 * 16**3}
    assert (found.copy, found.upload) == (2000, 1000)


def test_rows_are_held_against_the_ceilings(console: Console) -> None:
    ceilings = Ceilings({"float16": 100e9}, copy=1e9, upload=1e9)
    gpu.print_ceilings(ceilings)
    gpu.print_rows(
        [Row("onnx, graphs", "float16", 8, Timing(0.9, 1.0, 1.1), 5_000_000)], 5 * 10**9, 2_500_000, ceilings
    )
    text = console.export_text()
    assert "matrix product, float16: 0.1 TFLOP/s" in text
    row = next(line for line in text.splitlines() if "onnx, graphs" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "onnx, graphs", "float16", "8", "8.0", "900.00 - 1100.00", "40.0%", "2.0%", "5",
    ]  # fmt: skip


def test_the_head_is_measured_behind_a_lowered_backbone(bundle: Bundle) -> None:
    network = open_network(bundle)
    seen = []
    network.pooling.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    share = gpu.head_share(network, torch.randn(1, 3, 64, 64), "bfloat16", rounds=2)
    assert 0 < share < 1
    assert set(seen) == {torch.bfloat16}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_there_is_a_sentence() -> None:
    with pytest.raises(NoGPU, match="measures a GPU, and torch finds none"):
        bench(["gpu"])


def test_a_bundle_that_is_named_is_the_one_that_is_measured(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with bundles.bundle_of(bundle.path) as opened:
        assert opened.fingerprint == bundle.fingerprint
    measured: list[Path | None] = []
    monkeypatch.setattr(engines, "main", measured.append)
    bench(["engines", "--bundle", str(bundle.path)])
    bench(["engines"])
    assert measured == [bundle.path, None]


def test_without_a_bundle_there_is_one_of_random_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, console: Console
) -> None:
    monkeypatch.setitem(rankone.model.backbone.BACKBONES, "vgg16", one_layer)
    monkeypatch.chdir(tmp_path)
    with bundles.bundle_of(None) as opened:
        assert opened.manifest.preprocessing.size == 448
        assert set(opened.manifest.parity) == {"model.onnx", "model.torchscript.pt", "model.pt2"}
        assert bundles.photographs(opened, 2).shape == (2, 3, 448, 448)
    assert not opened.path.exists()
    assert "--bundle DIR" in console.export_text()


@pytest.mark.gpu
def test_a_gpu_is_measured(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, console: Console) -> None:
    for name, small in {"BATCHES": (2, 1), "ROUNDS": 2}.items():
        monkeypatch.setattr(gpu, name, small)
    gpu.main(bundle.path)
    text = console.export_text()
    for name in ("onnx", "torchscript", "export"):
        assert f"{name}, graphs" in text
    assert "of the time" in text
