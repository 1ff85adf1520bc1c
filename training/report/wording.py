"""How figures are called and printed."""

from __future__ import annotations

from typing import Final

from rankone.training.evaluate import Report

NAMES: Final = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "ece": "calibration error",
    "recall_at_1": "recall@1",
    "recall_at_2": "recall@2",
    "recall_at_4": "recall@4",
    "recall_at_8": "recall@8",
    "r_precision": "R-precision",
    "map_at_r": "mAP@R",
}


def percent(value: float) -> str:
    """A part as it is printed."""
    return f"{100 * value:.1f} %"


def beside(report: Report, name: str) -> str:
    """What is to be said of a figure in a few words."""
    if name == "ece":
        return "15 bins"
    if name == "top5" and len(report.per_class or ()) <= 5:
        return "of 5 classes or fewer"
    return between(report, name)


def between(report: Report, name: str) -> str:
    """The 95 % interval of a figure."""
    low, high = report.intervals[name]
    return f"{100 * low:.1f} – {100 * high:.1f} %"
