"""The picture of a comparison: quality against the bytes of a vector, and against the milliseconds of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from rankone.training.compare.ranking import By, Comparison, Place
from rankone.training.report.canvas import Theme, figure, plain_numbers, rendered
from rankone.training.report.document import Picture
from rankone.training.short.figures import BYTES

SCORES: Final[dict[By, str]] = {
    "mean": "mean of accuracy and both recalls",
    "accuracy": "accuracy of a linear classifier",
    "full": "recall@1 of whole embeddings",
    "short": "recall@1 of short embeddings",
}
_APART: Final = 0.045
"""Of the height of a chart, between two numbers beside it."""


def quality(comparison: Comparison) -> Picture:
    """Recall@1 over bytes, short and whole, and the score that ranks over milliseconds; numbers are those of the table."""
    alt = (
        "Two charts of all that was compared, numbered as in the table: recall at 1 over the bytes of a vector, short and "
        f"whole; and {SCORES[comparison.by]} over the milliseconds of an image, with 95 % intervals."
    )
    return rendered("quality", alt, lambda theme: _quality(comparison, theme))


def _quality(comparison: Comparison, theme: Theme) -> Figure:
    drawn = figure(5.4)
    bytes_, times = drawn.subplots(1, 2)
    _over_bytes(bytes_, comparison.places, theme)
    _over_times(times, comparison, theme)
    chosen = comparison.recommended
    names = [
        f"{number + 1} {_name(comparison, place)}{' (recommended)' if number == chosen else ''}"
        for number, place in enumerate(comparison.places)
    ]
    drawn.legend(
        [_invisible(bytes_)] * len(names), names, loc="outside lower center", ncols=4, fontsize=8, handlelength=0
    )
    return drawn


def _over_bytes(axes: Axes, places: Sequence[Place], theme: Theme) -> None:
    for place in places:
        row = place.row
        if row.short is not None and row.short_bytes is not None:
            axes.plot(
                [row.short_bytes, row.bytes],
                [100 * row.short.mean, 100 * row.full.mean],
                color=theme.faint,
                linewidth=0.8,
                zorder=1,
            )
            axes.plot(row.short_bytes, 100 * row.short.mean, color=theme.second, marker="o", linestyle="")
        axes.plot(row.bytes, 100 * row.full.mean, color=theme.first, marker="s", linestyle="")
    for color, marker, label in ((theme.second, "o", "short"), (theme.first, "s", "whole")):
        axes.plot([], [], color=color, marker=marker, linestyle="", label=label)
    axes.set_xscale("log")
    plain_numbers(axes, "x")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set(xlabel=f"bytes of a vector ({BYTES} a number)", ylabel="recall@1 in %", title="retrieval over size")
    axes.margins(x=0.12)
    axes.legend(loc="lower center", ncols=2)
    _number(axes, [(place.row.bytes, 100 * place.row.full.mean) for place in places])


def _over_times(axes: Axes, comparison: Comparison, theme: Theme) -> None:
    one_backbone = len({place.row.backbone for place in comparison.places}) == 1
    points = []
    for number, place in enumerate(comparison.places):
        ms = place.row.pooling_ms if one_backbone else place.row.ms
        color = theme.first if place.is_as_good else theme.faint
        axes.vlines(ms, 100 * place.low, 100 * place.high, color=color, linewidth=1)
        marker = "D" if number == comparison.recommended else "o"
        axes.plot(ms, 100 * place.score, color=color, marker=marker, linestyle="")
        points.append((ms, 100 * place.score))
    axes.plot([], [], color=theme.first, marker="o", linestyle="", label="not told from the best")
    axes.plot([], [], color=theme.faint, marker="o", linestyle="", label="worse than the best")
    axes.set_xscale("log")
    plain_numbers(axes, "x")
    unit = "milliseconds of the pooling, an image" if one_backbone else "milliseconds of an image"
    axes.set(xlabel=unit, ylabel="%", title=SCORES[comparison.by])
    axes.margins(x=0.12)
    axes.legend(loc="lower center", ncols=2)
    _number(axes, points)


def _number(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """The number of each point to its right, moved apart where points of about the same abscissa are near each other."""
    bottom, top = axes.get_ylim()
    bottom -= 0.12 * (top - bottom)  # room for the legend
    axes.set_ylim(bottom, top)
    left, right = np.log10(axes.get_xlim())
    apart, taken = _APART * (top - bottom), list[tuple[float, float]]()
    for number, (x, y) in sorted(enumerate(points, 1), key=lambda one: -one[1][1]):
        place, height = (np.log10(x) - left) / (right - left), y
        near = [other for where, other in taken if abs(where - place) < 0.06]
        if near:
            height = min(height, min(near) - apart)
        taken.append((place, height))
        axes.annotate(f"{number}", (x, y), xytext=(x * 10 ** (0.025 * (right - left)), height), fontsize=7, va="center")


def _invisible(axes: Axes) -> Line2D:
    (line,) = axes.plot([], [], linestyle="")
    return line


def _name(comparison: Comparison, place: Place) -> str:
    several = len({one.row.backbone for one in comparison.places}) > 1
    return place.row.title if several else place.row.pooling
