"""Accuracy by class: a bar each, or, of many classes, the worst of them and how all are distributed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankone.training.report.blocks import Picture
from rankone.training.report.pictures.canvas import Theme, figure, rendered, shortened, whole_numbers

NUM_BARS: Final = 30
"""More classes than this are not shown one by one."""
NUM_WORST: Final = 20


def per_class(accuracy: Mapping[str, float], counts: Mapping[str, int]) -> Picture:
    """Of the classes that have test images, worst first; `counts` are their test images."""
    ranked = sorted(accuracy, key=lambda name: accuracy[name])
    alt = f"Accuracy by class, from {shortened(ranked[0])} (lowest) to {shortened(ranked[-1])} (highest)."
    return rendered("per-class", alt, lambda theme: _draw(ranked, accuracy, counts, theme))


def _draw(ranked: Sequence[str], accuracy: Mapping[str, float], counts: Mapping[str, int], theme: Theme) -> Figure:
    many = len(ranked) > NUM_BARS
    shown = ranked[:NUM_WORST] if many else ranked
    drawn = figure(0.8 + 0.21 * len(shown))
    bars, *rest = drawn.subplots(1, 2 if many else 1, squeeze=False)[0]
    _bars(bars, shown, accuracy, counts, theme)
    if rest:
        bars.set_title(f"the {NUM_WORST} classes with the lowest accuracy")
        _histogram(rest[0], [100 * accuracy[name] for name in ranked], theme)
    return drawn


def _bars(
    axes: Axes, shown: Sequence[str], accuracy: Mapping[str, float], counts: Mapping[str, int], theme: Theme
) -> None:
    places, values = range(len(shown)), [100 * accuracy[name] for name in shown]
    axes.barh(places, values, color=theme.first, height=0.72)
    for place, (name, value) in enumerate(zip(shown, values, strict=True)):
        axes.text(value + 1, place, f"{value:.0f} % of {counts[name]}", va="center", fontsize=8)
    axes.set_yticks(places, [shortened(name) for name in shown])
    axes.tick_params("y", length=0)
    axes.grid(visible=False, axis="y")
    axes.invert_yaxis()
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 119)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("accuracy in %")


def _histogram(axes: Axes, values: Sequence[float], theme: Theme) -> None:
    axes.hist(values, bins=20, range=(0, 100), color=theme.first, rwidth=0.9)
    axes.axvline(float(np.mean(values)), color=theme.second, linestyle=(0, (4, 3)), label="mean")
    axes.set_title(f"all {len(values)} classes")
    axes.set_xlabel("accuracy in %")
    axes.set_ylabel("classes")
    whole_numbers(axes)
    axes.set_xlim(0, 100)
    axes.legend(loc="upper left")
