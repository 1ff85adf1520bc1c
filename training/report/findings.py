"""What a report is written from: a network's outputs on the test images, its training and its description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from rankone.model.bundle import DatasetRecord, TrainingRecord
from rankone.model.preprocessing import Preprocessing
from rankone.training.data import DataSet
from rankone.training.evaluate import Report
from rankone.training.metrics import Floats, Ints
from rankone.training.report.spectrum import Spectrum


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the model card says of the network."""

    name: str
    backbone: str
    weights: str
    """Of the backbone, before it was trained."""
    pooling: str
    parts: Mapping[str, Any]
    """Of the pooling, with all options."""
    preprocessing: Preprocessing
    dim: int
    num_parameters: int
    recipe: Mapping[str, Any]
    libraries: Mapping[str, str]
    measured_by: str
    """Which form of the network gave the outputs: engine and device."""
    trained_on: DatasetRecord | None = None
    fingerprint: str | None = None
    """Of the bundle; none for a run that is not exported."""
    measured: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All of it. Row i of `embeddings` and `logits` belongs to image i of `data.test`."""

    data: DataSet
    embeddings: Floats
    """(n, d), of length 1."""
    logits: Floats | None
    """(n, classes); none of a network without a classifier."""
    facts: Facts
    training: TrainingRecord | None = None
    """None where a bundle does not tell."""
    spectrum: Spectrum | None = None
    phase1: Mapping[str, float] | None = None
    """Figures of the network that phase 1 ended with, on the same images; None where they are not known."""

    @property
    def labels(self) -> Ints:
        """(n,)."""
        return np.array(self.data.test.labels)

    @property
    def flattered(self) -> bool:
        """Whether the test images steered, as in much published work: the figures are then those of the best epoch on them."""
        return self.facts.recipe.get("protocol") == "paper"


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
