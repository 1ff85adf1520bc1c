"""`RANKONE_PRECISION=auto`: the lower precision where the embeddings stay, and else float32. `RANKONE_ENGINE=auto`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankone.model.bundle import ONNX, Bundle
from rankone.model.engine import Engine, EngineError, UnusableNetwork
from rankone.model.engine.check import MIN_COSINE
from rankone.service import runtime
from rankone.service.settings import Settings


@pytest.mark.parametrize(
    ("device", "engine", "precision", "agrees", "loaded"),
    [
        ("cuda", "onnx", "auto", True, ["onnx float16"]),
        ("cuda", "onnx", "auto", False, ["onnx float16", "onnx float32"]),
        ("cuda", "auto", "auto", True, ["onnx float16"]),
        ("cuda", "auto", "float32", True, ["onnx float32"]),
        ("cpu", "onnx", "auto", True, ["onnx float32"]),
        ("cpu", "openvino", "auto", True, ["openvino bfloat16"]),
        ("cpu", "openvino", "auto", False, ["openvino bfloat16", "openvino float32"]),
        ("cuda", "onnx", "bfloat16", True, ["onnx bfloat16"]),
    ],
)
def test_the_precision_that_is_loaded(
    *,
    device: Any,
    engine: Any,
    precision: Any,
    agrees: bool,
    loaded: list[str],
    tiny: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The engines of a GPU are not here: only which of them would be loaded."""
    tried: list[str] = []

    def load_engine(_bundle: Bundle, name: str, _device: str, _threads: int, precision: str, **_: Any) -> str:
        tried.append(f"{name} {precision}")
        if precision != "float32" and not agrees:
            raise EngineError("cosine 0.5")
        return precision

    monkeypatch.setattr(runtime, "load_engine", load_engine)
    runtime.open_engine(tiny, Settings(bundle=tiny.path, device=device, engine=engine, precision=precision))
    assert tried == loaded
    assert ("cosine 0.5" in caplog.text) is not agrees


def test_auto_takes_the_fastest_and_says_so(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """All engines run; which is the fastest is the machine's business, so here it is the last."""
    tried: list[str] = []

    def fastest(engines: list[Engine], size: int) -> tuple[Engine, str]:
        tried.extend(f"{engine.name} {engine.precision}" for engine in engines)
        assert size == 64
        return engines[-1], "an image takes so long"

    monkeypatch.setattr(runtime, "fastest", fastest)
    caplog.set_level("INFO", "rankone")
    engine, why = runtime.open_engine(bundle, Settings(bundle=bundle.path, engine="auto"))
    assert tried == ["onnx float32", "openvino float32"]
    assert why == "engine auto: openvino in float32, as an image takes so long"
    assert why in caplog.text
    assert engine.name == "openvino"
    assert engine.run(np.zeros((1, 3, 64, 64), np.float32)).embedding.shape == (1, 10_000)
    engine.close()


def test_auto_never_takes_an_engine_that_loses_too_much(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO is compared with ONNX Runtime in float32 as well."""
    monkeypatch.setitem(MIN_COSINE, "float32", 1.1)
    engine, why = runtime.open_engine(bundle, Settings(bundle=bundle.path, engine="auto"))
    assert engine.name == "onnx"
    assert "openvino engine in float32 on" in why
    assert "differs from float32 on the CPU" in why
    engine.close()


def test_auto_says_of_a_bundle_that_no_engine_runs_that_it_is_unusable(tiny: Bundle, tmp_path: Path) -> None:
    """So that an older bundle is served instead."""
    broken = Path(shutil.copytree(tiny.path, tmp_path / "broken"))
    (broken / ONNX).write_bytes(b"\x08\x0a")
    with pytest.raises(UnusableNetwork, match="cannot run the network"):
        runtime.open_engine(tiny.model_copy(update={"path": broken}), Settings(bundle=broken, engine="auto"))
