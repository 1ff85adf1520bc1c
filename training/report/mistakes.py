"""The sections on single classes: the accuracy of each, and the most confused pairs with example images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from rankone.training.data import Split
from rankone.training.data.images import picture
from rankone.training.evaluate import Report
from rankone.training.metrics import Floats, Ints, softmax
from rankone.training.report import plots
from rankone.training.report.document import Block, Picture, Section, Table, Text
from rankone.training.report.findings import Findings, percent

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


_NUM_WORST: Final = 20


def classes(findings: Findings, report: Report) -> Section:
    """Accuracy by class, and what the worst are taken for."""
    assert report.per_class is not None
    assert report.confusion is not None
    counts = np.array(report.confusion)
    totals = dict(zip(report.per_class, counts.sum(1).tolist(), strict=True))
    accuracy = {name: value for name, value in report.per_class.items() if value is not None}
    blocks: list[Block] = [plots.per_class(accuracy, totals)]
    if worst := _worst(findings.data.classes, counts):
        blocks.append(worst)
    if missing := [name for name, value in report.per_class.items() if value is None]:
        blocks.append(Text(f"Without test images, and so not measured: {', '.join(missing)}.", "note"))
    return Section("Accuracy by class", blocks)


def confusions(findings: Findings, report: Report) -> Section:
    """The matrix, and the pairs that are confused most, with examples."""
    assert findings.logits is not None
    counts, names, split = np.array(report.confusion), findings.data.classes, findings.data.test
    pairs = most_confused(findings.logits, findings.labels, counts)
    matrix: list[Block] = [
        Text("A row holds the images of a class, its columns what they were taken for; colours are parts of the row."),
        plots.confusion(counts, names),
    ]
    if not pairs:
        return Section("Confusions", [*matrix, Text("No test image was taken for another class.")])
    rows = [
        (
            names[pair.true],
            names[pair.taken],
            f"{pair.count} of {counts[pair.true].sum()}",
            example(split, pair.mistake, f"confused-{place:02d}-mistake", f"{names[pair.true]}, mistaken"),
            "no test image"
            if pair.typical is None
            else example(split, pair.typical, f"confused-{place:02d}-typical", f"{names[pair.taken]}, typical"),
        )
        for place, pair in enumerate(pairs, 1)
    ]
    head = ("true class", "taken for", "images", "a mistaken image", "typical of what it was taken for")
    return Section("Confusions", [*matrix, Text("The most confused pairs", "heading"), Table(head, "llrll", rows)])


def _worst(names: Sequence[str], counts: Ints) -> Table | None:
    """The classes with mistakes, worst first, in full and in any script, which a picture has no room for."""
    totals, right = counts.sum(1), np.diag(counts)
    ranked = sorted(np.flatnonzero(right < totals).tolist(), key=lambda i: right[i] / totals[i])[:_NUM_WORST]
    rows = []
    for i in ranked:
        mistakes = np.where(np.arange(len(names)) == i, 0, counts[i])
        most = f"{names[int(mistakes.argmax())]} ({mistakes.max()})"
        rows.append((names[i], str(totals[i]), percent(right[i] / totals[i]), most))
    return Table(("class", "test images", "accuracy", "most often taken for"), "lrrl", rows) if rows else None
