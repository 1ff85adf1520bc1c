"""The sections of a report, from the figures to the spectrum of the features."""

from __future__ import annotations

from typing import Final

import numpy as np

from rankone.model.bundle import ReturnRecord
from rankone.training.evaluate import Report, gain
from rankone.training.metrics import Doubles
from rankone.training.report import plots
from rankone.training.report.document import Block, Figures, Section, Table, Text
from rankone.training.report.findings import NAMES, Findings, beside, between, percent


def steering(findings: Findings) -> Text:
    """One paragraph; a warning where the test images steered, or may have been trained on."""
    record, trained_on, data = findings.training, findings.facts.trained_on, findings.data
    if trained_on is not None and (trained_on.name, trained_on.split) != (data.name, data.protocol):
        return Text(
            f"The network was trained on {trained_on.name} ({trained_on.split}). These images are of {data.name} "
            f"({data.protocol}): whether some of them were among those it was trained on is not known here.",
            "warning",
        )
    if findings.flattered:
        return Text(
            "These figures flatter the network. The test images themselves steered: the learning rate and the choice of "
            "epoch followed their error, as is common practice, so the figures are the best of many looks at the same "
            "images. Expect lower ones on new images.",
            "warning",
        )
    if record is None:
        return Text("Which images steered the training is not recorded with this network.", "note")
    return Text(
        f"What steered the training: {record.steered_by.rstrip('.')}. The test images steered nothing; they were looked at "
        "once, at the end.",
        "note",
    )


_IN_FRONT: Final = ("top1", "top5", "ece", "recall_at_1", "r_precision", "map_at_r")


def summary(findings: Findings, report: Report) -> Section:
    """The figures, and which images they are of."""
    data = findings.data
    shown = [name for name in _IN_FRONT if name in report.metrics]
    images = f"{report.num_images:,} test images of {len(data.classes):,} classes from {data.name} ({data.protocol})"
    gained = gain(report)
    return Section(
        "Figures",
        [
            *([] if gained is None else [Text(gained)]),
            Figures([(NAMES[name], percent(report.metrics[name]), beside(report, name)) for name in shown]),
            Text(f"Measured on {images}. Ranges are 95 % intervals over the test images (bootstrap, 1,000 resamples)."),
            steering(findings),
        ],
    )


def training(findings: Findings) -> Section:
    """How it was trained, epoch by epoch."""
    record = findings.training
    if record is None or not record.history:
        return Section("Training", [Text("Nothing is recorded of the epochs of this training.")])
    lengths = {phase: sum(epoch.phase == phase for epoch in record.history) for phase in (1, 2)}
    words = "Phase 1 trains the classifier alone, phase 2 all layers"
    words += f"; {lengths[1]} and {lengths[2]} epochs. "
    if record.chosen is None:
        words += "The network is the one that training began with: no epoch made it better."
    else:
        words += f"The network is that of phase {record.chosen[0]}, epoch {record.chosen[1] + 1}."
    returned = [Text(_return(one), "note") for one in record.returns]
    return Section("Training", [Text(words), *returned, plots.history(record)])


def _return(record: ReturnRecord) -> str:
    then = "ended there" if record.learning_rate is None else f"continued at half the rate, {record.learning_rate:.3g}"
    return (
        f"Phase 2 diverged in epoch {record.epoch + 1} after {record.step} steps: {record.reason}. Training went back to the "
        f"best network so far and {then}."
    )


def calibration(report: Report) -> Section:
    """Whether probabilities can be believed."""
    assert report.reliability is not None
    assert report.ece is not None
    words = (
        "Of images that get a class with a probability of 80 %, 80 % should be right. The calibration error is the mean "
        f"distance from that over 15 bins of confidence (Guo et al., 2017): {percent(report.ece)}."
    )
    sides = sum((one.confidence or 0) * one.count for one in report.reliability) / report.num_images - (
        report.top1 or 0
    )
    words += (
        f" On average the network is {'more' if sides > 0 else 'less'} sure than it is right, by {percent(abs(sides))}."
    )
    return Section("Calibration", [Text(words), plots.calibration(report.reliability)])


def retrieval(report: Report) -> Section:
    """How well the embedding finds images of the same class."""
    words = (
        "Every test image is a query against all others, by cosine. Recall@k: an image of the same class is among the k "
        "nearest. With R other images of the class, R-precision is the part of the R nearest that are of it, and mAP@R "
        "counts their order too (Musgrave et al., 2020)."
    )
    names = [name for name in NAMES if name not in ("top1", "top5", "ece")]
    rows = [(NAMES[name], percent(report.metrics[name]), between(report, name)) for name in names]
    blocks: list[Block] = [
        Text(words),
        plots.retrieval(report),
        Table(("figure", "value", "95 % interval"), "lrr", rows),
    ]
    if report.num_alone:
        alone = f"Images that are the only ones of their class find nothing, and count as misses: {report.num_alone:,}."
        blocks.append(Text(alone, "note"))
    return Section("Retrieval", blocks)


def spectrum(findings: Findings) -> Section:
    """What RUN does to the features."""
    found = findings.spectrum
    assert found is not None
    whose = "the network's own" if found.own else "the paper's, for comparison: this network's pooling has no RUN"
    words = (
        f"Singular values of the local features of {len(found.before)} test images, scaled by the root of their number; lines "
        f"are means, bands hold the middle 80 % of the images. RUN is {whose} (eta = {found.eta:g}, K = {found.iterations})."
    )
    return Section("Spectrum", [Text(words), Text(_ratios(found.before, found.after)), plots.singular_values(found)])


def _ratios(before: Doubles, after: Doubles) -> str:
    ratios = [[row[0] / row[1] for row in values if row[1:2] > 0] for values in (before, after)]
    if not all(ratios):
        return "There is one value an image at most, and so nothing to compare it with."
    first, second = (np.mean(found) for found in ratios)
    return (
        f"The first is {first:.1f} times the second before RUN, and {second:.1f} times after it (mean over the images)."
    )
