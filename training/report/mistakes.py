"""The sections on single classes: the accuracy of each, and the most confused pairs with example images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from rankone.model.folders import name_of
from rankone.model.preprocessing import to_srgb
from rankone.training.data import Split
from rankone.training.data.picture import picture
from rankone.training.evaluate import Report
from rankone.training.metrics import Floats, Ints, softmax
from rankone.training.report import plots
from rankone.training.report.document import Block, Picture, Section, Table, Text
from rankone.training.report.findings import Findings, percent

NUM_PAIRS: Final = 10
_NUM_WORST: Final = 20
_SIDE: Final = 160
"""Longest side of an example in pixels; smaller images keep their size."""


@dataclass(frozen=True)
class Confusion:
    """`count` images of class `true` were taken for class `taken`. `mistake` and `typical` are indices of test images."""

    true: int
    taken: int
    count: int
    mistake: int
    """The image of `true` with the highest probability of `taken`, among those that were taken for it."""
    typical: int | None
    """The image of `taken` with the highest probability, recognized if any was; None if it has no test images."""


def classes(findings: Findings, report: Report) -> Section:
    """The accuracy of every class, and what the worst are taken for."""
    assert report.per_class is not None
    counts = np.array(report.confusion)
    totals = dict(zip(report.per_class, counts.sum(1).tolist(), strict=True))
    accuracy = {name: value for name, value in report.per_class.items() if value is not None}
    blocks: list[Block] = [plots.per_class(accuracy, totals)]
    if worst := _worst(findings.data.classes, counts):
        blocks.append(Table(("class", "test images", "accuracy", "most often taken for"), "lrrl", worst))
    if missing := [name for name, value in report.per_class.items() if value is None]:
        blocks.append(Text(f"Without test images, and so not measured: {', '.join(missing)}.", "note"))
    return Section("Accuracy by class", blocks)


def confusions(findings: Findings, report: Report) -> Section:
    """The confusion matrix, and the most confused pairs with examples."""
    assert findings.logits is not None
    counts, names = np.array(report.confusion), findings.data.classes
    words = "A row holds the images of a class, its columns what they were taken for; colours are parts of the row."
    matrix: list[Block] = [Text(words), plots.confusion(counts, names)]
    rows: list[tuple[str | Picture, ...]] = []
    for place, pair in enumerate(most_confused(findings.logits, findings.labels, counts), 1):
        true, taken, file = names[pair.true], names[pair.taken], f"confused-{place:02d}"
        mistake = example(findings.data.test, pair.mistake, f"{file}-mistake", f"{true}, mistaken")
        typical: str | Picture = "no test image"
        if pair.typical is not None:
            typical = example(findings.data.test, pair.typical, f"{file}-typical", f"{taken}, typical")
        rows.append((true, taken, f"{pair.count} of {counts[pair.true].sum()}", mistake, typical))
    if not rows:
        return Section("Confusions", [*matrix, Text("No test image was taken for another class.")])
    head = ("true class", "taken for", "images", "a mistaken image", "typical of what it was taken for")
    return Section("Confusions", [*matrix, Text("The most confused pairs", "heading"), Table(head, "llrll", rows)])


def most_confused(logits: Floats, labels: Ints, confusion: Ints, limit: int = NUM_PAIRS) -> list[Confusion]:
    """The pairs with the most mistakes, most first; of equal ones in the order of the classes."""
    mistakes = confusion - np.diag(np.diag(confusion))
    probabilities, predictions = softmax(logits), logits.argmax(1)
    pairs = []
    for cell in np.argsort(-mistakes, axis=None, kind="stable")[:limit].tolist():
        true, taken = divmod(cell, len(confusion))
        if mistakes[true, taken]:
            probability, predicted, members = probabilities[:, taken], predictions == taken, labels == taken
            mistake = _highest(probability, (labels == true) & predicted)
            recognized = members & predicted
            typical = _highest(probability, recognized if recognized.any() else members) if members.any() else None
            pairs.append(Confusion(true, taken, int(mistakes[true, taken]), mistake, typical))
    return pairs


def example(split: Split, index: int, name: str, alt: str) -> Picture:
    """A small copy of a test image, without its banner, never enlarged; raises DataError if it cannot be read."""
    path = split.paths[index]
    small = picture(path, split.banner)
    small.thumbnail((_SIDE, _SIDE))
    small = to_srgb(small)
    file = io.BytesIO()
    small.save(file, "png")
    return Picture(name, alt, light=file.getvalue(), caption=name_of(f"{path.parent.name}/{path.name}"))


def _highest(probability: Floats, among: Ints) -> int:
    return int(np.where(among, probability, -1).argmax())


def _worst(names: Sequence[str], counts: Ints) -> Sequence[tuple[str, ...]]:
    """The classes with mistakes, worst first, with their full names, which a chart has no room for."""
    totals, right = counts.sum(1), np.diag(counts)
    ranked = sorted(np.flatnonzero(right < totals).tolist(), key=lambda i: right[i] / totals[i])[:_NUM_WORST]
    rows = []
    for i in ranked:
        mistakes = np.where(np.arange(len(names)) == i, 0, counts[i])
        most = f"{names[int(mistakes.argmax())]} ({mistakes.max()})"
        rows.append((names[i], str(totals[i]), percent(right[i] / totals[i]), most))
    return rows
