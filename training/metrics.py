"""Pure functions from arrays to figures; `training.evaluate` combines them into a report.

Retrieval leaves one out: every image is a query against all others, by cosine. With R the number of other images of the query's
class and rel(i) whether the i-th nearest is one of them,

    recall@k = any(rel(1..k)),   R-precision = 1/R sum_{i<=R} rel(i),   AP@R = 1/R sum_{i<=R} P(i) rel(i),
    P(i) = 1/i sum_{j<=i} rel(j),

all 0 if R = 0: such a query counts as a miss. Source: Musgrave et al., A Metric Learning Reality Check, 2020.

Calibration: Guo et al., On Calibration of Modern Neural Networks, 2017, with 15 bins of equal width, open at their lower end.

Intervals: the percentile bootstrap, Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13. It resamples the
scores of images; a retrieval query keeps its gallery, so nothing is ranked again.

Hazard: all n x n scores of 10,000 images take 400 MB and their order twice as much, so retrieval works in blocks of rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

Floats = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]

RECALL_AT: Final = (1, 2, 4, 8)
NUM_BINS: Final = 15
NUM_RESAMPLES: Final = 1000
COVERAGE: Final = 0.95
NUM_ROWS: Final = 256
"""Queries in a block of retrieval: 10 MB of scores against 10,000 images."""


def rank_of_label(logits: Floats, labels: Ints) -> Ints:
    """(n,): the rank of the true class by logits (n, c), 0 for the best; of equal logits the first class leads.

    An image is right for top-k accuracy if its rank is below k.
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    before = np.arange(logits.shape[1]) < labels[:, None]
    return np.asarray(((logits > own) | ((logits == own) & before)).sum(1))


def confusion_matrix(predictions: Ints, labels: Ints, num_classes: int) -> Ints:
    """Counts (c, c): rows are the true class, columns the predicted one."""
    cells = labels * num_classes + predictions
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class_accuracy(confusion: Ints) -> list[float | None]:
    """The share of every class's images that were recognized; None for a class without images."""
    counts = confusion.sum(1)
    return [int(confusion[i, i]) / int(count) if count else None for i, count in enumerate(counts)]


class Bin(BaseModel):
    """The images whose highest probability lies in (low, high]; without images, the means are None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float
    high: float
    count: int
    confidence: float | None
    """Mean of the highest probability."""
    accuracy: float | None
    """The share of them whose most probable class is the true one."""

    @property
    def gap(self) -> float:
        """|accuracy - confidence|; 0 without images."""
        return 0.0 if self.accuracy is None or self.confidence is None else abs(self.accuracy - self.confidence)


def softmax(logits: Floats) -> Doubles:
    """(n, c) logits to probabilities, in float64."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return np.asarray(np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True))


def reliability(logits: Floats, labels: Ints) -> list[Bin]:
    """The 15 bins, from logits (n, c) and labels (n,)."""
    probabilities = softmax(logits)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    edges = np.linspace(0, 1, NUM_BINS + 1)
    places = np.searchsorted(edges[1:-1], confidence, side="left")
    bins = []
    for number, (low, high) in enumerate(pairwise(edges)):
        members = places == number
        means = [float(values[members].mean()) if members.any() else None for values in (confidence, right)]
        count = int(members.sum())
        bins.append(Bin(low=float(low), high=float(high), count=count, confidence=means[0], accuracy=means[1]))
    return bins


def expected_calibration_error(bins: list[Bin]) -> float:
    """The mean over the images of |accuracy - confidence| of their bin."""
    return sum(one.count * one.gap for one in bins) / sum(one.count for one in bins)


def retrieval_scores(embeddings: Floats, labels: Ints) -> dict[str, Doubles]:
    """The figures of every query, each (n,) in [0, 1], from embeddings (n, d) of length 1 and labels (n,).

    Equal scores keep the order of the images.
    """
    num_relevant = np.bincount(labels)[labels] - 1
    blocks = []
    for start in range(0, len(labels), NUM_ROWS):
        rows = slice(start, start + NUM_ROWS)
        relevant = _relevance(embeddings, labels, rows, max(*RECALL_AT, int(num_relevant[rows].max())))
        blocks.append(scores_of(relevant, num_relevant[rows]))
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def scores_of(relevant: npt.NDArray[np.bool_], num_relevant: Ints) -> dict[str, Doubles]:
    """The figures of every query, from rel (queries, depth), depth at least the largest R, and R (queries,)."""
    ranks = np.arange(1, relevant.shape[1] + 1)
    counted = relevant & (ranks <= num_relevant[:, None])
    precision = relevant.cumsum(1) / ranks
    divisor = np.maximum(num_relevant, 1)
    recall = {f"recall_at_{k}": relevant[:, :k].any(1).astype(np.float64) for k in RECALL_AT}
    return {**recall, "r_precision": counted.sum(1) / divisor, "map_at_r": (precision * counted).sum(1) / divisor}


def _relevance(embeddings: Floats, labels: Ints, rows: slice, depth: int) -> npt.NDArray[np.bool_]:
    """(queries, at most depth): whether the 1st, 2nd … nearest other image is of the query's class."""
    scores = embeddings[rows] @ embeddings.T
    queries = np.arange(len(labels))[rows]
    scores[np.arange(len(queries)), queries] = -np.inf
    others = len(labels) - 1
    nearest = np.argsort(-scores, axis=1, kind="stable")[:, : min(depth, others)]
    return np.asarray(labels[nearest] == labels[queries][:, None])


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


def intervals(scores: Mapping[str, Doubles]) -> dict[str, tuple[float, float]]:
    """The 95 % interval of every figure's mean, from its scores image by image, (n,)."""
    means = resampled_means(np.stack(list(scores.values()), axis=1))
    return {name: interval(column) for name, column in zip(scores, means.T, strict=True)}
