"""The charts of a report, one public function each: plain data in, the same picture for light and dark pages out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from rankone.model.training_record import TrainingRecord
from rankone.training.evaluate import Report
from rankone.training.metrics import RECALL_AT, Bin, Ints
from rankone.training.report.canvas import Theme, figure, plain_numbers, rendered, shortened, whole_numbers
from rankone.training.report.document import Picture
from rankone.training.report.findings import Spectrum
from rankone.training.short.figures import BYTES, ShortReport

NUM_BARS: Final = 30
"""More classes than this are not shown one by one."""
NUM_WORST: Final = 20
_MAX_NUMBERED: Final = 20
_MAX_NAMED: Final = 50
_DASHED: Final = (0, (4, 3))
_MIN_SHARE: Final = 1e-6
"""Singular values smaller than this share of the largest are rounding errors."""


def history(training: TrainingRecord) -> Picture:
    """Loss, error and learning rate over both phases, with the chosen epoch and every return to the best network."""
    alt = (
        "Three curves over the epochs of both phases: loss, error, and learning rate; lines mark the chosen epoch, and where "
        "training diverged and was rolled back."
    )
    return rendered("history", alt, lambda theme: _history(training, theme))


def per_class(accuracy: Mapping[str, float], counts: Mapping[str, int]) -> Picture:
    """Accuracy of the classes that have test images, worst first; of many classes, the worst and the distribution."""
    ranked = sorted(accuracy, key=lambda name: accuracy[name])
    alt = f"Accuracy by class, from {shortened(ranked[0])} (lowest) to {shortened(ranked[-1])} (highest)."
    return rendered("per-class", alt, lambda theme: _per_class(ranked, accuracy, counts, theme))


def confusion(counts: Ints, classes: Sequence[str]) -> Picture:
    """Counts (c, c), rows the true class; a cell's colour is its share of the row, in another hue off the diagonal."""
    alt = f"Confusion matrix of {len(classes)} classes: {int(np.trace(counts))} of {int(counts.sum())} images on the diagonal."
    return rendered("confusion", alt, lambda theme: _confusion(counts, classes, theme))


def calibration(bins: Sequence[Bin]) -> Picture:
    """The reliability diagram, and the number of images by confidence."""
    alt = "Reliability diagram: accuracy over confidence in 15 bins, against the diagonal; and how many images are in each."
    return rendered("calibration", alt, lambda theme: _calibration(bins, theme))


def retrieval(report: Report) -> Picture:
    """Recall over k, R-precision and mAP@R, with their 95 % intervals."""
    alt = (
        "Recall among the k nearest images for k = 1, 2, 4, 8, then R-precision and mAP@R, each with its 95 % interval."
    )
    return rendered("retrieval", alt, lambda theme: _retrieval(report, theme))


def singular_values(spectrum: Spectrum) -> Picture:
    """The spectrum before and after RUN: the mean over the images and the middle 80 % of them, on logarithmic axes."""
    alt = (
        "Singular values of the local features by their place, before and after RUN: the first falls, the others stay."
    )
    return rendered("spectrum", alt, lambda theme: _singular_values(spectrum, theme))


def short_recall(report: ShortReport) -> Picture:
    """Recall@1 over the bytes of an embedding, with 95 % intervals; the full embedding is the last point."""
    alt = "Recall at 1 over the bytes of an embedding, for short embeddings of growing length and for the full one."
    return rendered("short", alt, lambda theme: _short_recall(report, theme))


def _history(training: TrainingRecord, theme: Theme) -> Figure:
    drawn = figure(3.0)
    loss, error, rate = drawn.subplots(1, 3)
    epochs = training.history
    held_out = [None if e.validation_error is None else 100 * e.validation_error for e in epochs]
    _line(loss, [e.loss for e in epochs], theme.first, "training images")
    _line(loss, [e.validation_loss for e in epochs], theme.second, "images that select")
    _line(error, [100 * e.train_error for e in epochs], theme.first, "training images")
    _line(error, held_out, theme.second, "images that select")
    _line(rate, [e.learning_rate for e in epochs], theme.first, "", drawstyle="steps-mid")
    rate.set_yscale("log")
    plain_numbers(rate, "y")
    for axes, title in ((loss, "loss"), (error, "error in %"), (rate, "learning rate")):
        axes.set(title=title, xlabel="epoch")
        _mark_epochs(axes, training, theme)
    loss.set_ylim(bottom=0)
    error.set_ylim(bottom=0)
    handles, labels = error.get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return drawn


def _line(axes: Axes, values: Sequence[float | None], color: str, label: str, drawstyle: str = "default") -> None:
    points = [(place, value) for place, value in enumerate(values, 1) if value is not None]
    if points:
        marker = "o" if len(points) < 4 else ""
        places, shown = zip(*points, strict=True)
        axes.plot(places, shown, color=color, label=label, marker=marker, markersize=4, drawstyle=drawstyle)


def _mark_epochs(axes: Axes, training: TrainingRecord, theme: Theme) -> None:
    """The start of phase 2, the chosen epoch, and every epoch in which training was rolled back."""
    places = [(epoch.phase, epoch.epoch) for epoch in training.history]
    border = sum(phase == 1 for phase, _ in places)
    if 0 < border < len(places):
        axes.axvspan(border + 0.5, len(places) + 0.5, color=theme.faint, alpha=0.25, linewidth=0, label="phase 2")
    if training.chosen in places:
        place = places.index(training.chosen) + 1
        axes.axvline(place, color=theme.ink, linestyle=_DASHED, linewidth=1, label="chosen epoch")
    for number, record in enumerate(training.rollbacks):
        label = "rolled back to the best network" if number == 0 else ""
        axes.axvline(border + record.epoch + 0.5, color=theme.second, linestyle="dotted", linewidth=1.5, label=label)
    axes.set_xlim(0.5, len(places) + 0.5)


def _per_class(ranked: Sequence[str], accuracy: Mapping[str, float], counts: Mapping[str, int], theme: Theme) -> Figure:
    many = len(ranked) > NUM_BARS
    shown = ranked[:NUM_WORST] if many else ranked
    drawn = figure(0.8 + 0.21 * len(shown))
    bars, *rest = drawn.subplots(1, 2 if many else 1, squeeze=False)[0]
    bars.barh(range(len(shown)), [100 * accuracy[name] for name in shown], color=theme.first, height=0.72)
    for place, name in enumerate(shown):
        label = f"{100 * accuracy[name]:.0f} % of {counts[name]}"
        bars.text(100 * accuracy[name] + 1, place, label, va="center", fontsize=8)
    bars.set_yticks(range(len(shown)), [shortened(name) for name in shown])
    bars.tick_params("y", length=0)
    bars.grid(visible=False, axis="y")
    bars.set(xlim=(0, 119), ylim=(len(shown) - 0.4, -0.6), xticks=range(0, 101, 20), xlabel="accuracy in %")
    for histogram in rest:
        bars.set_title(f"the {NUM_WORST} classes with the lowest accuracy")
        values = [100 * accuracy[name] for name in ranked]
        histogram.hist(values, bins=20, range=(0, 100), color=theme.first, rwidth=0.9)
        histogram.axvline(float(np.mean(values)), color=theme.second, linestyle=_DASHED, label="mean")
        histogram.set(title=f"all {len(values)} classes", xlabel="accuracy in %", ylabel="classes", xlim=(0, 100))
        whole_numbers(histogram)
        histogram.legend(loc="upper left")
    return drawn


def _confusion(counts: Ints, classes: Sequence[str], theme: Theme) -> Figure:
    side = min(7.6, 2.6 + 0.3 * len(classes))
    drawn = figure(side, side + 0.8)
    axes = drawn.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    on_diagonal = np.eye(len(classes), dtype=bool)
    for color, hidden in ((theme.first, ~on_diagonal), (theme.second, on_diagonal)):
        ramp = LinearSegmentedColormap.from_list("", [theme.page, color])
        values = np.ma.masked_array(shares**0.5, hidden)  # the root makes a single mistake visible
        axes.imshow(values, cmap=ramp, vmin=0, vmax=1, interpolation="nearest")
    if len(classes) <= _MAX_NUMBERED:
        for row, column in np.argwhere(counts):
            color = theme.page if shares[row, column] > 0.3 else theme.ink
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=8)
    axes.grid(visible=False)
    axes.spines[:].set_visible(True)
    unit = "" if len(classes) <= _MAX_NAMED else " (number of the class)"
    axes.set(xlabel=f"taken for{unit}", ylabel=f"true class{unit}")
    if not unit:
        labels, size = [shortened(name) for name in classes], 8 if len(classes) <= 30 else 6
        axes.set_xticks(range(len(classes)), labels, rotation=90, fontsize=size)
        axes.set_yticks(range(len(classes)), labels, fontsize=size)
        axes.tick_params(length=0)
    return drawn


def _calibration(bins: Sequence[Bin], theme: Theme) -> Figure:
    drawn = figure(3.8)
    diagram, amounts = drawn.subplots(1, 2)
    filled = [one for one in bins if one.accuracy is not None and one.confidence is not None]
    middles, width = [(one.low + one.high) / 2 for one in filled], bins[0].high - bins[0].low
    accuracies = [one.accuracy or 0.0 for one in filled]
    gaps = [(one.confidence or 0.0) - accuracy for one, accuracy in zip(filled, accuracies, strict=True)]
    diagram.plot([0, 1], [0, 1], color=theme.ink, linestyle=_DASHED, linewidth=1, label="confidence = accuracy")
    diagram.bar(middles, accuracies, width=0.92 * width, color=theme.first, label="accuracy")
    diagram.bar(middles, gaps, width=0.4 * width, bottom=accuracies, color=theme.second, alpha=0.75, label="gap")
    diagram.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy", title="reliability")
    drawn.legend(*diagram.get_legend_handles_labels(), loc="outside lower left", ncols=3)
    counts = [one.count for one in bins]
    amounts.bar([(one.low + one.high) / 2 for one in bins], counts, width=0.92 * width, color=theme.first)
    amounts.set(xlim=(0, 1), xlabel="confidence", ylabel="images", title="how sure the network is")
    whole_numbers(amounts)
    return drawn


def _retrieval(report: Report, theme: Theme) -> Figure:
    drawn = figure(3.4)
    curve, others = drawn.subplots(1, 2, width_ratios=(2, 1), sharey=True)
    values, intervals = (
        {n: 100 * np.array(v) for n, v in given.items()} for given in (report.metrics, report.intervals)
    )
    names = [f"recall_at_{k}" for k in RECALL_AT]
    recalls, (lows, highs) = [float(values[name]) for name in names], np.array([intervals[name] for name in names]).T
    curve.fill_between(RECALL_AT, lows, highs, color=theme.first, alpha=0.2, linewidth=0, label="95 % interval")
    curve.plot(RECALL_AT, recalls, color=theme.first, marker="o")
    for k, value in zip(RECALL_AT, recalls, strict=True):
        curve.annotate(f"{value:.1f}", (k, value), xytext=(0, -14), textcoords="offset points", ha="center")
    curve.set_xscale("log", base=2)
    curve.set_xticks(RECALL_AT)
    plain_numbers(curve, "x")
    curve.set(xlabel="k nearest images", ylabel="%", title="recall@k", ylim=(0, 103))
    curve.legend(loc="lower right")
    for place, name in enumerate(("r_precision", "map_at_r")):
        low, high = intervals[name]
        others.bar(place, float(values[name]), width=0.5, color=theme.first)
        others.vlines(place, low, high, color=theme.ink, linewidth=1.2)
        others.text(place, high + 1.5, f"{values[name]:.1f}", ha="center")
    others.set_xticks([0, 1], ["R-precision", "mAP@R"])
    others.set(xlim=(-0.6, 1.6), title="all images of the class")
    others.grid(visible=False, axis="x")
    return drawn


def _singular_values(spectrum: Spectrum, theme: Theme) -> Figure:
    drawn = figure(3.6)
    axes = drawn.subplots()
    floor = max(_MIN_SHARE * float(spectrum.before.max()), np.finfo(np.float64).tiny)
    places = np.arange(1, spectrum.before.shape[1] + 1)
    for name, values, color, width in (
        ("before RUN", spectrum.before, theme.second, 4.0),
        ("after RUN", spectrum.after, theme.first, 1.6),
    ):
        low, high = np.maximum(np.quantile(values, [0.1, 0.9], axis=0), floor)
        axes.fill_between(places, low, high, color=color, alpha=0.18, linewidth=0)
        axes.plot(places, np.maximum(values.mean(0), floor), color=color, label=name, linewidth=width)
    axes.set(xscale="log", yscale="log")
    plain_numbers(axes, "x")
    plain_numbers(axes, "y")
    axes.set(xlabel="place of the singular value", ylabel="singular value", xlim=(0.93, 1.05 * len(places)))
    axes.legend()
    return drawn


def _short_recall(report: ShortReport, theme: Theme) -> Figure:
    drawn = figure(3.4)
    axes = drawn.subplots()
    curves = [("all test images", report.test, theme.first), ("unseen classes", report.unseen, theme.second)]
    for name, found, color in curves:
        if found is None:
            continue
        *shorter, full = found
        sizes = [BYTES * one.length for one in shorter]
        lows, highs = zip(*(one.intervals["recall_at_1"] for one in shorter), strict=True)
        axes.fill_between(
            sizes, [100 * low for low in lows], [100 * high for high in highs], color=color, alpha=0.15, lw=0
        )
        axes.plot(sizes, [100 * one.recall_at_1 for one in shorter], color=color, marker="o", label=name)
        low, high = full.intervals["recall_at_1"]
        axes.vlines(BYTES * full.length, 100 * low, 100 * high, color=color, linewidth=1.2)
        axes.plot(BYTES * full.length, 100 * full.recall_at_1, color=color, marker="s")
    axes.axvline(BYTES * report.recommended, color=theme.faint, linestyle="dashed", linewidth=1, label="recommended")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted({BYTES * one.length for one in report.test}))
    plain_numbers(axes, "x")
    axes.set(xlabel="bytes of an embedding (the square is the full one)", ylabel="recall@1 in %", ylim=(None, 101))
    axes.legend(loc="lower right")
    return drawn
