"""docs/engines.md speaks of settings that there are."""

from __future__ import annotations

import re
from pathlib import Path

from rankone.cli.bench import BENCHMARKS
from rankone.service.settings import Settings

TEXT = Path(__file__).parents[1].joinpath("docs", "engines.md").read_text(encoding="utf-8")


def test_every_variable_is_a_setting() -> None:
    named = set(re.findall(r"RANKONE_([A-Z_]+)", TEXT))
    assert len(named) >= 5
    assert named <= {name.upper() for name in Settings.model_fields}


def test_every_benchmark_can_be_run() -> None:
    named = set(re.findall(r"rankone bench (\w+)", TEXT))
    assert named == {"engines", "gpu"}
    assert named <= BENCHMARKS.keys()
