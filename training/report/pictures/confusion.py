"""The confusion matrix: right answers on the diagonal in one colour, mistakes beside it in another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from rankone.training.metrics.arrays import Ints
from rankone.training.report.blocks import Picture
from rankone.training.report.pictures.canvas import Theme, figure, rendered, shortened

_MOST_NUMBERED: Final = 20
_MOST_NAMED: Final = 50


def confusion(counts: Ints, classes: Sequence[str]) -> Picture:
    """Of counts (c, c), rows the true class; a cell's colour is its part of the row."""
    alt = f"Confusion matrix of {len(classes)} classes: {int(np.trace(counts))} of {int(counts.sum())} images on the diagonal."
    return rendered("confusion", alt, lambda theme: _draw(counts, classes, theme))


def _draw(counts: Ints, classes: Sequence[str], theme: Theme) -> Figure:
    side = min(7.6, 2.6 + 0.3 * len(classes))
    drawn = figure(side, side + 0.8)
    axes = drawn.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    on_diagonal = np.eye(len(classes), dtype=bool)
    for color, hidden in ((theme.first, ~on_diagonal), (theme.second, on_diagonal)):
        ramp = LinearSegmentedColormap.from_list("", [theme.page, color])
        values = np.ma.masked_array(shares**0.5, hidden)  # the root, or a single mistake could not be seen
        axes.imshow(values, cmap=ramp, vmin=0, vmax=1, interpolation="nearest")
    if len(classes) <= _MOST_NUMBERED:
        _number(axes, counts, shares, theme)
    _name(axes, classes)
    return drawn


def _number(axes: Axes, counts: Ints, shares: np.ndarray[tuple[int, ...], np.dtype[np.floating]], theme: Theme) -> None:
    for row, column in np.argwhere(counts):
        color = theme.page if shares[row, column] > 0.3 else theme.ink
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=8)


def _name(axes: Axes, classes: Sequence[str]) -> None:
    axes.grid(visible=False)
    axes.spines[:].set_visible(True)
    axes.set_xlabel("taken for")
    axes.set_ylabel("true class")
    if len(classes) > _MOST_NAMED:
        axes.set_xlabel("taken for (number of the class)")
        axes.set_ylabel("true class (number of the class)")
        return
    labels, size = [shortened(name) for name in classes], 8 if len(classes) <= 30 else 6
    axes.set_xticks(range(len(classes)), labels, rotation=90, fontsize=size)
    axes.set_yticks(range(len(classes)), labels, fontsize=size)
    axes.tick_params(length=0)
