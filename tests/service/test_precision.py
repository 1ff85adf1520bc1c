"""`RANKONE_PRECISION=auto`: float16 on a GPU where the embeddings stay, and else float32."""

from __future__ import annotations

from typing import Any

import pytest

from rankone.model.bundle import Bundle
from rankone.model.engine import EngineError
from rankone.service import runtime
from rankone.service.settings import Settings


@pytest.mark.parametrize(
    ("device", "precision", "agrees", "loaded"),
    [
        ("cuda", "auto", True, ["float16"]),
        ("cuda", "auto", False, ["float16", "float32"]),
        ("cpu", "auto", True, ["float32"]),
        ("cuda", "bfloat16", True, ["bfloat16"]),
    ],
)
def test_the_precision_that_is_loaded(
    *,
    device: Any,
    precision: Any,
    agrees: bool,
    loaded: list[str],
    tiny: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The engines of a GPU are not here: only which of them would be loaded."""
    tried: list[str] = []

    def load_engine(_bundle: Bundle, _name: str, _device: str, _threads: int, precision: str, **_: Any) -> str:
        tried.append(precision)
        if precision == "float16" and not agrees:
            raise EngineError("cosine 0.5")
        return precision

    monkeypatch.setattr(runtime, "load_engine", load_engine)
    runtime.open_engine(tiny, Settings(bundle=tiny.path, device=device, precision=precision))
    assert tried == loaded
    assert ("cosine 0.5" in caplog.text) is not agrees
