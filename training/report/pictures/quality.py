"""Calibration and retrieval."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankone.training.evaluate import Report
from rankone.training.metrics.calibration import Bin
from rankone.training.metrics.retrieval import RECALL_AT
from rankone.training.report.blocks import Picture
from rankone.training.report.pictures.canvas import Theme, figure, plain_numbers, rendered, whole_numbers


def calibration(bins: Sequence[Bin]) -> Picture:
    """The reliability diagram, and beside it how many images have which confidence."""
    alt = "Reliability diagram: accuracy over confidence in 15 bins, against the diagonal; and how many images are in each."
    return rendered("calibration", alt, lambda theme: _calibration(bins, theme))


def retrieval(report: Report) -> Picture:
    """Recall over k, and R-precision and mAP@R, with their 95 % intervals."""
    alt = (
        "Recall among the k nearest images for k = 1, 2, 4, 8, then R-precision and mAP@R, each with its 95 % interval."
    )
    return rendered("retrieval", alt, lambda theme: _retrieval(report, theme))


def _calibration(bins: Sequence[Bin], theme: Theme) -> Figure:
    drawn = figure(3.8)
    diagram, amounts = drawn.subplots(1, 2)
    filled = [one for one in bins if one.accuracy is not None and one.confidence is not None]
    middles, width = [(one.low + one.high) / 2 for one in filled], bins[0].high - bins[0].low
    accuracies = [one.accuracy or 0.0 for one in filled]
    gaps = [(one.confidence or 0.0) - accuracy for one, accuracy in zip(filled, accuracies, strict=True)]
    diagram.plot([0, 1], [0, 1], color=theme.ink, linestyle=(0, (4, 3)), linewidth=1, label="confidence = accuracy")
    diagram.bar(middles, accuracies, width=0.92 * width, color=theme.first, label="accuracy")
    diagram.bar(middles, gaps, width=0.4 * width, bottom=accuracies, color=theme.second, alpha=0.75, label="gap")
    diagram.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy", title="reliability")
    drawn.legend(*diagram.get_legend_handles_labels(), loc="outside lower left", ncols=3)
    amounts.bar(
        [(one.low + one.high) / 2 for one in bins], [one.count for one in bins], width=0.92 * width, color=theme.first
    )
    amounts.set(xlim=(0, 1), xlabel="confidence", ylabel="images", title="how sure the network is")
    whole_numbers(amounts)
    return drawn


def _retrieval(report: Report, theme: Theme) -> Figure:
    drawn = figure(3.4)
    curve, others = drawn.subplots(1, 2, width_ratios=(2, 1), sharey=True)
    names = [f"recall_at_{k}" for k in RECALL_AT]
    values = [100 * report.metrics[name] for name in names]
    lows, highs = zip(*(_percents(report, name) for name in names), strict=True)
    curve.fill_between(RECALL_AT, lows, highs, color=theme.first, alpha=0.2, linewidth=0, label="95 % interval")
    curve.plot(RECALL_AT, values, color=theme.first, marker="o")
    for k, value in zip(RECALL_AT, values, strict=True):
        curve.annotate(f"{value:.1f}", (k, value), xytext=(0, -14), textcoords="offset points", ha="center")
    curve.set_xscale("log", base=2)
    curve.set_xticks(RECALL_AT)
    plain_numbers(curve, "x")
    curve.set(xlabel="k nearest images", ylabel="%", title="recall@k", ylim=(0, 103))
    curve.legend(loc="lower right")
    _points(others, report, theme)
    return drawn


def _points(axes: Axes, report: Report, theme: Theme) -> None:
    for place, name in enumerate(("r_precision", "map_at_r")):
        value, (low, high) = 100 * report.metrics[name], _percents(report, name)
        axes.bar(place, value, width=0.5, color=theme.first)
        axes.vlines(place, low, high, color=theme.ink, linewidth=1.2)
        axes.text(place, high + 1.5, f"{value:.1f}", ha="center")
    axes.set_xticks([0, 1], ["R-precision", "mAP@R"])
    axes.set_xlim(-0.6, 1.6)
    axes.grid(visible=False, axis="x")
    axes.set_title("all images of the class")


def _percents(report: Report, name: str) -> tuple[float, float]:
    low, high = report.intervals[name]
    return 100 * low, 100 * high
