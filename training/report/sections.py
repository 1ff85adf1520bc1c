"""The sections of a report, from the figures to short embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from rankone.model.reduction import ReductionRecord
from rankone.model.training_record import FitRecord, RollbackRecord
from rankone.training.evaluate import FIGURES, Report, gain
from rankone.training.metrics import Doubles
from rankone.training.report import plots
from rankone.training.report.document import Block, Code, Figures, Section, Table, Text, percent
from rankone.training.report.findings import Findings, Spectrum
from rankone.training.short.figures import BYTES, LengthFigures, ShortReport

_LEARNED: Final = {"within-class": "within-class whitening", "pca": "PCA whitening"}


def summary(findings: Findings, report: Report) -> Section:
    """The main figures, and the images they were measured on."""
    data, gained = findings.data, gain(report)
    figures = []
    for name in ("top1", "top5", "ece", "recall_at_1", "r_precision", "map_at_r"):
        if name in report.metrics:
            few = name == "top5" and len(report.per_class or ()) <= 5
            beside = "15 bins" if name == "ece" else "of 5 classes or fewer" if few else _interval(report, name)
            figures.append((FIGURES[name], percent(report.metrics[name]), beside))
    images = f"{report.num_images:,} test images of {len(data.classes):,} classes from {data.name} ({data.protocol})"
    ranges = "Ranges are 95 % intervals over the test images (bootstrap, 1,000 resamples)."
    blocks: list[Block] = [Figures(figures), Text(f"Measured on {images}. {ranges}"), selection_note(findings)]
    return Section("Figures", blocks if gained is None else [Text(gained), *blocks])


def selection_note(findings: Findings) -> Text:
    """Which images selected the network: a warning if the test images did, or may have been trained on."""
    record, trained_on, data = findings.manifest.training, findings.manifest.dataset, findings.data
    if trained_on is not None and (trained_on.name, trained_on.split) != (data.name, data.protocol):
        return Text(
            f"The network was trained on {trained_on.name} ({trained_on.split}). These images are of {data.name} "
            f"({data.protocol}): it is not known here whether some of them were among its training images.",
            "warning",
        )
    if findings.manifest.recipe.get("protocol") == "paper":
        return Text(
            "These figures flatter the network. The test images themselves selected the learning rate and the epoch, as is "
            "common practice, so the figures are the best of many measurements of the same images. Expect lower ones on new "
            "images.",
            "warning",
        )
    if record is None:
        return Text("Which images selected the epoch is not recorded with this network.", "note")
    return Text(
        f"Epoch and learning rate were selected by {record.steered_by.rstrip('.')}. The test images selected nothing; they "
        "were measured once, at the end.",
        "note",
    )


def _interval(report: Report, name: str) -> str:
    low, high = report.intervals[name]
    return f"{100 * low:.1f} – {100 * high:.1f} %"


def training(findings: Findings) -> Section:
    """How it was trained, epoch by epoch."""
    record = findings.manifest.training
    if record is None or not record.history:
        return Section("Training", [Text("Nothing is recorded of the epochs of this training.")])
    first, second = (sum(epoch.phase == phase for epoch in record.history) for phase in (1, 2))
    words = f"Phase 1 trains the classifier alone, phase 2 all layers; {first} and {second} epochs. "
    if record.chosen is None:
        words += "The network is the one that training began with: no epoch made it better."
    else:
        words += f"The network is that of phase {record.chosen[0]}, epoch {record.chosen[1] + 1}."
    if record.phase1_fit is not None:
        words = f"{_fit(record.phase1_fit)} {words}"
    rollbacks = [Text(_rollback(one), "note") for one in record.rollbacks]
    return Section("Training", [Text(words), *rollbacks, plots.history(record)])


def skipped(findings: Findings) -> Section:
    """The images that were left out."""
    words = f"{len(findings.skipped):,} images could not be decoded: they were neither trained on nor measured."
    return Section("Skipped images", [Text(words, "warning"), Code("files", "\n".join(findings.skipped))])


def _fit(record: FitRecord) -> str:
    final = record.final
    chosen = f"chosen from {len(record.attempts)} by {record.chosen_by}" if record.attempts else record.chosen_by
    limit = "" if final.converged else ", its limit: it is not converged"
    return (
        f"Phase 1 was solved by L-BFGS in {final.iterations} iterations{limit}; its penalty on the weights is "
        f"{final.strength:g} ({chosen})."
    )


def _rollback(record: RollbackRecord) -> str:
    then = "ended there" if record.learning_rate is None else f"continued at half the rate, {record.learning_rate:.3g}"
    return (
        f"Phase 2 diverged in epoch {record.epoch + 1} after {record.step} steps: {record.reason}. Training was rolled back "
        f"to the best network so far and {then}."
    )


def calibration(report: Report) -> Section:
    """Whether probabilities can be trusted."""
    assert report.reliability is not None
    assert report.ece is not None
    confidence = sum((one.confidence or 0) * one.count for one in report.reliability) / report.num_images
    excess = confidence - (report.top1 or 0)
    words = (
        "Of images that get a class with a probability of 80 %, 80 % should be right. The calibration error is the mean "
        f"distance from that over 15 bins of confidence (Guo et al., 2017): {percent(report.ece)}. On average the network's "
        f"confidence is {percent(abs(excess))} {'higher' if excess > 0 else 'lower'} than its accuracy."
    )
    return Section("Calibration", [Text(words), plots.calibration(report.reliability)])


def retrieval(report: Report) -> Section:
    """How well the embedding finds images of the same class."""
    words = (
        "Every test image is a query against all others, by cosine. Recall@k: an image of the same class is among the k "
        "nearest. With R other images of the class, R-precision is the part of the R nearest that are of it, and mAP@R "
        "counts their order too (Musgrave et al., 2020)."
    )
    names = [name for name in FIGURES if name not in ("top1", "top5", "ece")]
    rows = [(FIGURES[name], percent(report.metrics[name]), _interval(report, name)) for name in names]
    table = Table(("figure", "value", "95 % interval"), "lrr", rows)
    blocks: list[Block] = [Text(words), plots.retrieval(report), table]
    if report.num_alone:
        alone = f"Images that are the only ones of their class find nothing, and count as misses: {report.num_alone:,}."
        blocks.append(Text(alone, "note"))
    return Section("Retrieval", blocks)


def spectrum(found: Spectrum) -> Section:
    """The effect of RUN on the features."""
    whose = "the network's own" if found.own else "the paper's, for comparison: this network's pooling has no RUN"
    words = (
        f"Singular values of the local features of {len(found.before)} test images, scaled by the root of their number; lines "
        f"are means, bands hold the middle 80 % of the images. RUN is {whose} (eta = {found.eta:g}, K = {found.iterations})."
    )
    return Section("Spectrum", [Text(words), Text(_ratios(found.before, found.after)), plots.singular_values(found)])


def _ratios(before: Doubles, after: Doubles) -> str:
    ratios = [[row[0] / row[1] for row in values if row[1:2] > 0] for values in (before, after)]
    if not all(ratios):
        return "No image has a second value to compare the first with."
    first, second = (np.mean(found) for found in ratios)
    return (
        f"The first is {first:.1f} times the second before RUN, and {second:.1f} times after it (mean over the images)."
    )


def short(report: ShortReport, record: ReductionRecord | None) -> Section:
    """How well embeddings of each length retrieve, on test images and on classes that the map did not learn from."""
    learned = ""
    if record is not None:
        learned = f"Learned by {_LEARNED[record.method]} from {record.source}; shrinkage {record.shrinkage:g}."
    words = (
        "The first numbers of the output `short`, divided by their length, are an embedding of that length, as `/embed?dim=64` "
        f"returns it. Bytes are of float16, as an index stores them. {learned}"
    )
    rule = (
        f"Recommended: {report.recommended} numbers, the shortest length whose recall@1 is within one percentage point of the "
        f"best short one{'' if report.unseen is None else ' on unseen classes'}."
    )
    blocks: list[Block] = [Text(words), Text(rule, "note"), plots.short_recall(report)]
    blocks += [Text("All test images", "heading"), _by_length(report.test)]
    if report.unseen is None:
        blocks.append(Text("Not measured here: what the map does for classes that it did not learn from.", "note"))
    else:
        unseen = "Each half of the classes among themselves, by a map that was learned from the other half."
        blocks += [Text("Unseen classes", "heading"), Text(unseen), _by_length(report.unseen)]
    return Section("Short embeddings", blocks)


def _by_length(found: Sequence[LengthFigures]) -> Table:
    rows = []
    for one in found:
        cells = [
            percent(getattr(one, name), one.intervals[name]) for name in ("recall_at_1", "r_precision", "map_at_r")
        ]
        full = " (full)" if one is found[-1] else ""
        rows.append((f"{one.length:,}{full}", f"{BYTES * one.length:,}", *cells))
    return Table(("numbers", "bytes", "recall@1", "R-precision", "mAP@R"), "rrrrr", rows)
