"""What a report is written from: a network's outputs on the test images, and what is recorded of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from rankone.model.bundle import Manifest
from rankone.training.data import DataSet
from rankone.training.evaluate import Report
from rankone.training.metrics import Floats, Ints
from rankone.training.report.confused import Contrast
from rankone.training.report.spectrum import Spectrum
from rankone.training.short.figures import ShortReport


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Row i of `embeddings` and `logits` belongs to image i of `data.test`."""

    data: DataSet
    embeddings: Floats
    """(n, d), of length 1."""
    logits: Floats | None
    """(n, classes); None for a network without a classifier."""
    manifest: Manifest
    """Of the network; its metrics, parity and files are not used."""
    num_parameters: int
    measured_by: str
    """Engine and device that gave the outputs."""
    fingerprint: str | None = None
    """Of the bundle; None for a run that is not exported."""
    spectrum: Spectrum | None = None
    contrasts: Mapping[int, Contrast] | None = None
    """The evidence in the mistaken images that are shown, by their index; None where it has none or was not computed."""
    phase1: Mapping[str, float] | None = None
    """Figures of the network that phase 1 ended with, on the same images; None if not known."""
    short: ShortReport | None = None
    """Of short embeddings; None for a network without them."""
    skipped: tuple[str, ...] = ()
    """A sentence for every image that could not be decoded, and was left out."""
    measured: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def labels(self) -> Ints:
        """(n,)."""
        return np.array(self.data.test.labels)

    @property
    def title(self) -> str:
        """The network's name; with its version if it is exported."""
        manifest = self.manifest
        return manifest.name if self.fingerprint is None else f"{manifest.name} {manifest.version}"


def percent(value: float) -> str:
    """A share as it is printed."""
    return f"{100 * value:.1f} %"


def interval_of(report: Report, name: str) -> str:
    """The 95 % interval of a figure."""
    low, high = report.intervals[name]
    return f"{100 * low:.1f} – {100 * high:.1f} %"
