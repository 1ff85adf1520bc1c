"""Whether a probability means what it says: reliability bins and the expected calibration error.

Source: Guo et al., On Calibration of Modern Neural Networks, 2017: 15 bins of equal width, each open at its lower end.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from rankone.training.metrics.arrays import Doubles, Floats, Ints

NUM_BINS: Final = 15


class Bin(BaseModel):
    """The images whose highest probability lies in (low, high]; without images there is nothing to average."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float
    high: float
    count: int
    confidence: float | None
    """Mean of the highest probability."""
    accuracy: float | None
    """The part of them whose most probable class is the true one."""

    @property
    def gap(self) -> float:
        """|accuracy - confidence|; 0 where there is nothing to compare."""
        return 0.0 if self.accuracy is None or self.confidence is None else abs(self.accuracy - self.confidence)


def softmax(logits: Floats) -> Doubles:
    """(n, c) logits to probabilities, in float64."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    weights = np.exp(shifted)
    return np.asarray(weights / weights.sum(1, keepdims=True))


def reliability(logits: Floats, labels: Ints) -> list[Bin]:
    """The 15 bins, from logits (n, c) and labels (n,)."""
    probabilities = softmax(logits)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    edges = np.linspace(0, 1, NUM_BINS + 1)
    places = np.searchsorted(edges[1:-1], confidence, side="left")
    bins = []
    for number, (low, high) in enumerate(pairwise(edges)):
        members = places == number
        found = members.any()
        bins.append(
            Bin(
                low=float(low),
                high=float(high),
                count=int(members.sum()),
                confidence=float(confidence[members].mean()) if found else None,
                accuracy=float(right[members].mean()) if found else None,
            )
        )
    return bins


def expected_calibration_error(bins: list[Bin]) -> float:
    """The mean over the images of |accuracy - confidence| of their bin."""
    total = sum(one.count for one in bins)
    gaps = [one.count * one.gap for one in bins]
    return sum(gaps) / total
