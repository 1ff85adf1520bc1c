"""`RANKONE_PRECISION=auto`: the lower precision where the embeddings stay, and else float32. `RANKONE_ENGINE=auto`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rankone.model.bundle import ONNX, Bundle
from rankone.model.engine import EngineError, UnusableNetwork
from rankone.model.engine.trial import Candidate, Times, Trial
from rankone.service import engine_choice
from rankone.service.settings import Settings


@pytest.mark.parametrize(
    ("device", "engine", "precision", "agrees", "loaded"),
    [
        ("cuda", "onnx", "auto", True, ["onnx float16"]),
        ("cuda", "onnx", "auto", False, ["onnx float16", "onnx float32"]),
        ("cuda", "auto", "auto", True, ["onnx float16"]),
        ("cuda", "auto", "float32", True, ["onnx float32"]),
        ("cuda", "auto", None, True, ["onnx float32"]),
        ("cpu", "openvino", None, True, ["openvino float32"]),
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

    monkeypatch.setattr(engine_choice, "load_engine", load_engine)
    engine_choice.open_engine(tiny, Settings(bundle=tiny.path, device=device, engine=engine, precision=precision))
    assert tried == loaded
    assert ("cosine 0.5" in caplog.text) is not agrees


FLOAT: Candidate = ("onnx", "float32")
HALF: Candidate = ("openvino", "bfloat16")
FULL: Candidate = ("openvino", "float32")
FASTEST = Trial({FLOAT: Times(0.9, 0.5), HALF: Times(0.1, 0.1), FULL: Times(0.5, 0.3)})
Choose = Callable[..., tuple[str, list[Candidate], list[str]]]


@pytest.fixture
def choose(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> Choose:
    """What `auto` says, what it tried, and what it loaded after a trial that ended so."""

    def chosen(trial: Trial, *refused: str, **settings: Any) -> tuple[str, list[Candidate], list[str]]:
        tried, loaded = list[Candidate](), list[str]()

        def try_out(_: Bundle, candidates: Sequence[Candidate], threads: int) -> Trial:
            assert threads == 3
            tried.extend(candidates)
            return trial

        def load_engine(_bundle: Bundle, name: str, _device: str, _threads: int, precision: str, **_: Any) -> str:
            loaded.append(f"{name} {precision}")
            if loaded[-1] in refused:
                raise EngineError(f"{loaded[-1]} is not precise")
            return loaded[-1]

        monkeypatch.setattr(engine_choice, "try_out", try_out)
        monkeypatch.setattr(engine_choice, "load_engine", load_engine)
        given = Settings(bundle=tiny.path, engine="auto", threads=3, **settings)
        engine, why = engine_choice.open_engine(tiny, given)
        assert str(engine) == loaded[-1]
        return why, tried, loaded

    return chosen


def test_auto_is_the_default() -> None:
    assert Settings.model_fields["engine"].default == "auto"
    assert Settings.model_fields["precision"].default is None


@pytest.mark.parametrize(
    ("precision", "tried"),
    [
        (None, [FLOAT, HALF, FULL]),
        ("auto", [FLOAT, HALF, FULL]),
        ("float32", [FLOAT, FULL]),
        ("bfloat16", [("onnx", "bfloat16"), HALF]),
    ],
)
def test_auto_tries_what_the_precision_allows(choose: Choose, precision: Any, tried: list[Candidate]) -> None:
    """A precision that is set is kept; one that is not set is chosen with the engine."""
    assert choose(FASTEST, precision=precision)[1] == tried


def test_auto_takes_the_fastest_and_says_so(choose: Choose, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rankone")
    why, _, loaded = choose(FASTEST)
    assert loaded == ["openvino bfloat16"]
    assert why == f"engine auto: openvino in bfloat16, as {FASTEST}"
    assert [(record.levelname, record.message) for record in caplog.records] == [("INFO", why)]


def test_auto_never_takes_an_engine_that_loses_too_much(choose: Choose) -> None:
    why, _, loaded = choose(FASTEST, "openvino bfloat16", "openvino float32")
    assert loaded == ["openvino bfloat16", "openvino float32", "onnx float32"]
    assert why.startswith("engine auto: onnx in float32, as an image takes ")
    assert why.endswith("; openvino bfloat16 is not precise; openvino float32 is not precise")


def test_auto_says_what_did_not_run(choose: Choose, caplog: pytest.LogCaptureFixture) -> None:
    """A CPU without units for bfloat16 is nothing to warn of."""
    why, _, loaded = choose(Trial({FLOAT: Times(0.5, 0.5), FULL: Times(0.6, 0.4)}, ("openvino bfloat16: no units",)))
    assert loaded == ["onnx float32"]
    assert why.endswith("openvino float32 600.0 ms of processor time; openvino bfloat16: no units")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_after_a_crash_no_other_library_comes_into_the_service(
    choose: Choose, caplog: pytest.LogCaptureFixture
) -> None:
    why, _, loaded = choose(Trial({}, (), "the trial of openvino bfloat16 failed: Segmentation fault"))
    assert loaded == ["onnx float32"]
    assert why == "engine auto: onnx in float32; the trial of openvino bfloat16 failed: Segmentation fault"
    assert [record.levelname for record in caplog.records if record.levelname != "INFO"] == ["WARNING"]
    with pytest.raises(EngineError, match="onnx float32 is not precise"):
        choose(Trial({}, (), "Segmentation fault"), "onnx float32")


def test_without_openvino_auto_is_onnx_without_a_trial_and_without_a_word(
    choose: Choose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    why, tried, loaded = choose(FASTEST)
    assert (tried, loaded) == ([], ["onnx float32"])
    assert why == "engine auto: onnx, as openvino is not installed; precision float32, as none is set"
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_auto_says_of_a_bundle_that_no_engine_runs_that_it_is_unusable(tiny: Bundle, tmp_path: Path) -> None:
    """So that an older bundle is served instead."""
    broken = Path(shutil.copytree(tiny.path, tmp_path / "broken"))
    (broken / ONNX).write_bytes(b"\x08\x0a")
    with pytest.raises(UnusableNetwork, match="cannot run the network"):
        engine_choice.open_engine(tiny.model_copy(update={"path": broken}), Settings(bundle=broken, engine="auto"))


@pytest.mark.openvino
def test_auto_serves_with_what_it_found(tiny: Bundle) -> None:
    """With a real trial; which engine it takes is the machine's business."""
    engine, why = engine_choice.open_engine(tiny, Settings(bundle=tiny.path, engine="auto"))
    assert engine.name in ("onnx", "openvino")
    assert why.startswith(f"engine auto: {engine.name} in float32, as an image takes onnx float32 ")
    assert "openvino float32" in why
    engine.close()
