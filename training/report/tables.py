"""The tables of a comparison of runs, as text for a terminal or a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from rankone.training.comparison import Comparison, Summary

NOTE: Final = "Accuracy after each phase and recall@1 are those of the test images."
HEAD: Final = (
    *("run", "state", "recipe", "pooling", "backbone", "epochs"),
    *("after phase 1", "after phase 2", "recall@1", "best epoch", "returns", "minutes"),
)
DIFFERENCES: Final = "field"


def rows(runs: Sequence[Summary]) -> list[tuple[str, ...]]:
    """A row of `HEAD` for every run; `-` for what is not known."""
    return [
        (
            run.name,
            run.state,
            run.recipe or "-",
            run.pooling or "-",
            run.backbone or "-",
            f"{run.epochs[0]} + {run.epochs[1]}",
            _share(run.accuracy_phase1),
            _share(run.accuracy),
            _share(run.recall_at_1),
            "-" if run.best is None else f"{run.best[1]} of phase {run.best[0]}",
            str(run.rollbacks),
            "-" if run.minutes is None else f"{run.minutes:.1f}",
        )
        for run in runs
    ]


def difference_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """A row for each field in which the runs differ, a cell for each run."""
    return [(field, *map(_text, row.values())) for field, row in comparison.differences.items()]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
