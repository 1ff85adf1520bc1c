"""What a report says of single classes: how well each is recognized, and which are taken for each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from rankone.training.evaluate import Report
from rankone.training.metrics.arrays import Ints
from rankone.training.report import pictures
from rankone.training.report.blocks import Block, Section, Table, Text
from rankone.training.report.examples import example, most_confused
from rankone.training.report.findings import Findings
from rankone.training.report.wording import percent

_NUM_WORST: Final = 20


def classes(findings: Findings, report: Report) -> Section:
    """Accuracy by class, and what the worst are taken for."""
    assert report.per_class is not None
    assert report.confusion is not None
    counts = np.array(report.confusion)
    totals = dict(zip(report.per_class, counts.sum(1).tolist(), strict=True))
    accuracy = {name: value for name, value in report.per_class.items() if value is not None}
    blocks: list[Block] = [pictures.per_class(accuracy, totals)]
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
        pictures.confusion(counts, names),
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
