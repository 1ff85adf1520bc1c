"""How far a mean over images might have come out otherwise: the percentile bootstrap.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13. What is drawn again are the images, by
their scores as they are: a retrieval query keeps the gallery that it was measured against, so nothing is ranked again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from rankone.training.metrics.arrays import Doubles

NUM_RESAMPLES: Final = 1000
COVERAGE: Final = 0.95


def resampled_means(scores: Doubles, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> Doubles:
    """(n, m) scores of n images to (num_resamples, m) means, each of n images drawn with replacement.

    All m figures see the same draws.
    """
    draw, count = np.random.default_rng(seed), len(scores)
    means = np.empty((num_resamples, scores.shape[1]))
    for row in means:
        row[:] = np.bincount(draw.integers(count, size=count), minlength=count) @ scores / count
    return means


def interval(means: Doubles) -> tuple[float, float]:
    """The middle 95 % of resampled means (num_resamples,)."""
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def intervals(scores: Mapping[str, Doubles], seed: int = 0) -> dict[str, tuple[float, float]]:
    """The 95 % interval of every figure's mean, from its scores image by image, (n,)."""
    means = resampled_means(np.stack(list(scores.values()), axis=1), seed=seed)
    return {name: interval(column) for name, column in zip(scores, means.T, strict=True)}
