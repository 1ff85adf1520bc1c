"""How good the embeddings and predictions are on images that were not trained on. Pure functions of arrays.

Retrieval leaves one out: every image is a query against all the others, by cosine (Musgrave et al., A Metric Learning
Reality Check, 2020, for mAP@R).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]


class Report(BaseModel):
    """The figures of one network on one set of test images; all accuracies lie in [0, 1]."""

    num_images: int
    top1: float
    top5: float
    recall_at_1: float
    recall_at_5: float
    map_at_r: float
    per_class: dict[str, float]
    confusion: list[list[int]]
    """`confusion[i][j]`: images of class i that were taken for class j, in the order of `per_class`."""

    @property
    def metrics(self) -> dict[str, float]:
        """The single figures by name."""
        return self.model_dump(include={"top1", "top5", "recall_at_1", "recall_at_5", "map_at_r"})


def evaluate(embeddings: Floats, logits: Floats, labels: Ints, classes: tuple[str, ...]) -> Report:
    """Every figure of the report, from embeddings (n, d), logits (n, classes) and labels (n,).

    Raises:
        ValueError: no images, or arrays that do not go together.
    """
    if not len(labels) or len(embeddings) != len(labels) or logits.shape != (len(labels), len(classes)):
        raise ValueError(
            f"{len(labels)} labels and {len(classes)} classes do not go together with "
            f"embeddings {embeddings.shape} and logits {logits.shape}"
        )
    confusion = confusion_matrix(logits.argmax(1), labels, len(classes))
    counts = np.maximum(confusion.sum(1), 1)
    relevant = neighbour_relevance(embeddings, labels)
    return Report(
        num_images=len(labels),
        top1=topk_accuracy(logits, labels, 1),
        top5=topk_accuracy(logits, labels, 5),
        recall_at_1=recall_at_k(relevant, 1),
        recall_at_5=recall_at_k(relevant, 5),
        map_at_r=map_at_r(relevant),
        per_class={name: float(confusion[i, i] / counts[i]) for i, name in enumerate(classes)},
        confusion=confusion.tolist(),
    )


def topk_accuracy(logits: Floats, labels: Ints, k: int) -> float:
    """The part of the images whose class is among the k highest logits."""
    best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(1).mean())


def confusion_matrix(predictions: Ints, labels: Ints, num_classes: int) -> Ints:
    """Counts (classes, classes): rows are the true class, columns the predicted one."""
    cells = labels * num_classes + predictions
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def neighbour_relevance(embeddings: Floats, labels: Ints) -> npt.NDArray[np.bool_]:
    """(n, n - 1): whether the 1st, 2nd … nearest other image is of the same class. Equal scores keep their order."""
    scores = embeddings @ embeddings.T
    np.fill_diagonal(scores, -np.inf)
    nearest = np.argsort(-scores, axis=1, kind="stable")[:, :-1]
    return np.asarray(labels[nearest] == labels[:, None])


def recall_at_k(relevant: npt.NDArray[np.bool_], k: int) -> float:
    """The part of the queries that find their class among the k nearest."""
    return float(relevant[:, :k].any(1).mean())


def map_at_r(relevant: npt.NDArray[np.bool_]) -> float:
    """Mean over the queries of `1/R sum_{i<=R} P(i) rel(i)`, R the other images of the class; 0 where R is."""
    num_relevant = relevant.sum(1)
    precision = relevant.cumsum(1) / np.arange(1, relevant.shape[1] + 1)
    within_r = np.arange(relevant.shape[1]) < num_relevant[:, None]
    return float(((precision * relevant * within_r).sum(1) / np.maximum(num_relevant, 1)).mean())
