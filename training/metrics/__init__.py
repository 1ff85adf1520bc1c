"""Figures of embeddings and predictions, each a pure function of arrays; `training.evaluate` puts them together.

What is measured image by image is kept image by image, as that is what the bootstrap draws from.
"""

from __future__ import annotations

from rankone.training.metrics.bootstrap import interval, resampled_means
from rankone.training.metrics.calibration import Bin, expected_calibration_error, reliability, softmax
from rankone.training.metrics.classification import confusion_matrix, per_class_accuracy, rank_of_label
from rankone.training.metrics.retrieval import RECALL_AT, retrieval_scores

__all__ = [
    "RECALL_AT",
    "Bin",
    "confusion_matrix",
    "expected_calibration_error",
    "interval",
    "per_class_accuracy",
    "rank_of_label",
    "reliability",
    "resampled_means",
    "retrieval_scores",
    "softmax",
]
