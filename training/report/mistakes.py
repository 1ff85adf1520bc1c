"""The sections on single classes: the accuracy of each, and the most confused pairs with example images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image

from rankone.model.evidence import why_not
from rankone.model.explanation import ninths
from rankone.model.folders import name_of
from rankone.model.overlay import overlay
from rankone.model.preprocessing import to_srgb
from rankone.training.data import Split
from rankone.training.data.picture import picture
from rankone.training.evaluate import Report
from rankone.training.metrics import Ints
from rankone.training.report import plots
from rankone.training.report.document import Block, Picture, Section, Table, Text, percent
from rankone.training.report.findings import Confusion, Findings, most_confused

_NUM_WORST: Final = 20
_SIDE: Final = 160
"""Longest side of an example in pixels; smaller images keep their size."""
_MAPS: Final = (
    "Orange regions of a mistaken image speak for the class, blue ones against it; what is dark was cut off. Both maps of an "
    "image have the same scale. The shares of all regions and the bias of the class add up to its score, the logit."
)


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
    """The confusion matrix, and the most confused pairs with examples and, where there is any, the evidence in them."""
    assert findings.logits is not None
    counts, names = np.array(report.confusion), findings.data.classes
    words = "A row holds the images of a class, its columns what they were taken for; colours are parts of the row."
    matrix: list[Block] = [Text(words), plots.confusion(counts, names)]
    rows: list[tuple[str | Picture, ...]] = []
    for place, pair in enumerate(most_confused(findings.logits, findings.labels), 1):
        true, taken, file = names[pair.true], names[pair.taken], f"confused-{place:02d}"
        mistake = [example(findings.data.test, pair.mistake, f"{file}-mistake", f"{true}, mistaken")]
        if findings.contrasts is not None:
            mistake += _maps(findings, pair, file)
        typical: str | Picture = "no test image"
        if pair.typical is not None:
            typical = example(findings.data.test, pair.typical, f"{file}-typical", f"{taken}, typical")
        rows.append((true, taken, f"{pair.count} of {counts[pair.true].sum()}", *mistake, typical))
    if not rows:
        return Section("Confusions", [*matrix, Text("No test image was taken for another class.")])
    maps = () if findings.contrasts is None else ("evidence for what it was taken for", "evidence for its true class")
    head = ("true class", "taken for", "images", "a mistaken image", *maps, "typical of what it was taken for")
    pairs = [
        Text("The most confused pairs", "heading"),
        *_explained(findings),
        Table(head, "llr" + "l" * (len(head) - 3), rows),
    ]
    return Section("Confusions", [*matrix, *pairs])


def example(split: Split, index: int, name: str, alt: str) -> Picture:
    """A small copy of a test image, without its banner, never enlarged; raises DataError if it cannot be read."""
    path = split.paths[index]
    return Picture(name, alt, light=_png(_small(split, index)), caption=name_of(f"{path.parent.name}/{path.name}"))


def _maps(findings: Findings, pair: Confusion, file: str) -> list[Picture]:
    """The mistaken image under the shares for the class it was taken for, and under those for its own, on one scale."""
    assert findings.contrasts is not None
    contrast, names = findings.contrasts[pair.mistake], findings.data.classes
    image, spec = _small(findings.data.test, pair.mistake), findings.manifest.preprocessing
    full = max(float(np.abs(one.shares).max()) for one in (contrast.taken, contrast.true))
    pictures = []
    for kind, label, one in (("taken", pair.taken, contrast.taken), ("true", pair.true, contrast.true)):
        drawn = overlay(image, one.shares, spec, long_side=max(image.size), full=full)
        parts = ninths(one.shares)
        most, least = max(parts, key=parts.__getitem__), min(parts, key=parts.__getitem__)
        alt = f"{names[pair.true]}, mistaken: evidence for {names[label]}, most of it: {most}; least: {least}"
        pictures.append(Picture(f"{file}-{kind}", alt, light=_png(drawn), caption=f"score {one.score:.2f}"))
    return pictures


def _explained(findings: Findings) -> list[Block]:
    """What the maps show; or why there are none, unless they were not asked for."""
    if (reason := why_not(findings.manifest.pooling.parts)) is not None:
        return [Text(f"The mistakes are shown without evidence: {reason}.", "note")]
    return [] if findings.contrasts is None else [Text(_MAPS)]


def _small(split: Split, index: int) -> Image.Image:
    image = picture(split.paths[index], split.banner)
    image.thumbnail((_SIDE, _SIDE))
    return to_srgb(image)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


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
