"""The most confused pairs of classes, each with an image that was mistaken and one of what it was taken for."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

import numpy as np

from rankone.training.datasets import Split
from rankone.training.datasets.picture import picture
from rankone.training.metrics.arrays import Floats, Ints
from rankone.training.metrics.calibration import softmax
from rankone.training.report.blocks import Picture

NUM_PAIRS: Final = 10
_SIDE: Final = 160
"""Longest side of an example in pixels; smaller images stay as they are."""


@dataclass(frozen=True)
class Confusion:
    """`count` images of class `true` were taken for class `taken`. `mistake` and `typical` are indices of test images."""

    true: int
    taken: int
    count: int
    mistake: int
    """That of `true` which was taken for `taken` with the highest probability."""
    typical: int | None
    """That of `taken` which was recognized with the highest probability, or was nearest to it; None without test images."""


def most_confused(logits: Floats, labels: Ints, confusion: Ints, limit: int = NUM_PAIRS) -> list[Confusion]:
    """The pairs with the most mistakes, most first; of equal ones in the order of the classes."""
    mistakes = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:limit]
    cells = [(int(cell) // len(confusion), int(cell) % len(confusion)) for cell in order]
    probabilities, predictions = softmax(logits), logits.argmax(1)
    return [
        Confusion(
            true,
            taken,
            int(mistakes[true, taken]),
            mistake=_highest(probabilities[:, taken], (labels == true) & (predictions == taken)),
            typical=_typical(probabilities[:, taken], labels == taken, predictions == taken),
        )
        for true, taken in cells
        if mistakes[true, taken]
    ]


def example(split: Split, index: int, name: str, alt: str) -> Picture:
    """A small copy of a test image, without its banner, never enlarged; its file under it.

    Raises:
        DataError: it cannot be read as an image.
    """
    path = split.paths[index]
    small = picture(path, split.banner)
    small.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    small.save(file, "png")
    return Picture(name, alt, light=file.getvalue(), caption=f"{path.parent.name}/{path.name}")


def _typical(probability: Floats, members: Ints, predicted: Ints) -> int | None:
    recognized = members & predicted
    chosen = recognized if recognized.any() else members
    return _highest(probability, chosen) if chosen.any() else None


def _highest(probability: Floats, among: Ints) -> int:
    return int(np.where(among, probability, -1).argmax())
