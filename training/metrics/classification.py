"""Predictions against labels: n images, c classes."""

from __future__ import annotations

import numpy as np

from rankone.training.metrics.arrays import Floats, Ints


def rank_of_label(logits: Floats, labels: Ints) -> Ints:
    """(n,): at which place the true class comes, 0 for the best, from logits (n, c). Of equal logits the first class leads.

    An image counts for top-k accuracy where its rank is below k.
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    before = np.arange(logits.shape[1]) < labels[:, None]
    return np.asarray(((logits > own) | ((logits == own) & before)).sum(1))


def confusion_matrix(predictions: Ints, labels: Ints, num_classes: int) -> Ints:
    """Counts (c, c): rows are the true class, columns the predicted one."""
    cells = labels * num_classes + predictions
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class_accuracy(confusion: Ints) -> list[float | None]:
    """Of every class, the part of its images that were recognized; None where it has no image."""
    counts = confusion.sum(1)
    return [int(confusion[i, i]) / int(count) if count else None for i, count in enumerate(counts)]
