"""What a report is written from: a network's outputs on the test images, how it came to be, and what it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from rankone.model.bundle import DatasetRecord, TrainingRecord
from rankone.model.preprocessing import Preprocessing
from rankone.training.datasets import DataSet
from rankone.training.metrics.arrays import Floats, Ints
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
