"""The figures of a network on test images, and what they say of the training. Pure functions of arrays."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from rankone.training.metrics import (
    Bin,
    Floats,
    Ints,
    confusion_matrix,
    expected_calibration_error,
    intervals,
    per_class_accuracy,
    rank_of_label,
    reliability,
    retrieval_scores,
)
from rankone.training.short.figures import ShortReport

FIGURES: Final = {
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
"""The single figures of a report by their keys, in the order in which they are shown."""

REPORT: Final = "report.json"
"""File with the figures, in a run and in a report."""


class Report(BaseModel):
    """The figures of a network on test images, in [0, 1]; without a classifier, only those of retrieval."""

    model_config = ConfigDict(extra="forbid")

    num_images: int
    num_alone: int
    """Images that are the only ones of their class: in retrieval they find nothing, and count as misses."""
    top1: float | None
    top5: float | None
    ece: float | None
    """Expected calibration error: the difference of confidence and accuracy."""
    recall_at_1: float
    recall_at_2: float
    recall_at_4: float
    recall_at_8: float
    r_precision: float
    map_at_r: float
    intervals: dict[str, tuple[float, float]]
    """95 % intervals of the figures that are means over images. Not of `ece`: its absolute values are biased in resamples."""
    per_class: dict[str, float | None] | None
    """Accuracy by class; None for a class without test images."""
    confusion: list[list[int]] | None
    """`confusion[i][j]`: images of class i that were taken for class j, in the order of `per_class`."""
    reliability: list[Bin] | None
    phase1: dict[str, float] | None = None
    """The single figures of the network that phase 1 ended with, on the same images; None if not known."""
    short: ShortReport | None = None
    """Of short embeddings; None for a network without them."""

    @property
    def metrics(self) -> dict[str, float]:
        """The single figures by name, without those that are None."""
        found = {name: getattr(self, name) for name in FIGURES}
        return {name: value for name, value in found.items() if value is not None}


def gain(report: Report) -> str | None:
    """What phase 2 gained on the test images, in a sentence; None if not known."""
    if report.phase1 is None:
        return None
    before, after = report.phase1, report.metrics
    if before == after:
        return "Phase 2 gained nothing: the network is the one that phase 1 ended with."
    changes = [
        f"{name} by {100 * (after[key] - before[key]):+.1f} points ({before[key]:.3f} to {after[key]:.3f})"
        for key, name in (("top1", "test accuracy"), ("recall_at_1", "recall@1"))
        if key in before and key in after
    ]
    return f"Phase 2 changed {' and '.join(changes)}."


def doubts(report: Report) -> list[str]:
    """Reasons not to use a trained network, a sentence each."""
    found = []
    if report.top1 is not None and report.per_class is not None:
        chance = 1 / len(report.per_class)
        if report.top1 < min(2 * chance, (1 + chance) / 2):
            found.append(
                f"the test accuracy is {report.top1:.3f}, and guessing has {chance:.3f}: the network learned little"
            )
    before = (report.phase1 or {}).get("top1")
    if report.top1 is not None and before is not None and report.top1 < before:
        found.append(
            f"the test accuracy is {report.top1:.3f}, and was {before:.3f} after phase 1: phase 2 made it worse; try a lower "
            "rate, or train without it (--phase2.epochs 0)"
        )
    return found


def compute_report(embeddings: Floats, logits: Floats | None, labels: Ints, classes: tuple[str, ...]) -> Report:
    """Every figure of the report, from embeddings (n, d), logits (n, classes) if there is a classifier, and labels (n,).

    Raises:
        ValueError: no images, arrays whose shapes do not match, or numbers that are not finite.
    """
    scored = (len(labels), len(classes)) if logits is None else logits.shape
    if not len(labels) or len(embeddings) != len(labels) or scored != (len(labels), len(classes)):
        raise ValueError(
            f"{len(labels)} labels and {len(classes)} classes do not go together with "
            f"embeddings {embeddings.shape} and logits {None if logits is None else logits.shape}"
        )
    # a NaN is neither higher nor lower than anything, and would count as a right answer
    if not all(np.isfinite(array.sum(1)).all() for array in (embeddings, logits) if array is not None):
        raise ValueError("embeddings or logits hold numbers that are not finite")
    scores = retrieval_scores(embeddings, labels)
    figures: dict[str, Any] = {"per_class": None, "confusion": None, "reliability": None, **dict.fromkeys(FIGURES)}
    if logits is not None:
        ranks, bins = rank_of_label(logits, labels), reliability(logits, labels)
        scores |= {f"top{k}": (ranks < k).astype(np.float64) for k in (1, 5)}
        confusion = confusion_matrix(logits.argmax(1), labels, len(classes))
        figures |= {"ece": expected_calibration_error(bins), "reliability": bins, "confusion": confusion.tolist()}
        figures["per_class"] = dict(zip(classes, per_class_accuracy(confusion), strict=True))
    figures |= {name: float(values.mean()) for name, values in scores.items()}
    num_alone = int((np.bincount(labels)[labels] == 1).sum())
    return Report(num_images=len(labels), num_alone=num_alone, intervals=intervals(scores), **figures)
