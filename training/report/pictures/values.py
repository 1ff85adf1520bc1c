"""The spectrum of the local features before and after RUN."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from rankone.training.metrics.arrays import Doubles
from rankone.training.report.blocks import Picture
from rankone.training.report.pictures.canvas import Theme, figure, plain_numbers, rendered
from rankone.training.report.spectrum import Spectrum

_RANGE = 1e-6
"""What is smaller than this part of the largest value is rounding."""


def singular_values(spectrum: Spectrum) -> Picture:
    """The mean over the images and the middle 80 % of them; both axes logarithmic."""
    alt = (
        "Singular values of the local features by their place, before and after RUN: the first falls, the others stay."
    )
    return rendered("spectrum", alt, lambda theme: _draw(spectrum, theme))


def _draw(spectrum: Spectrum, theme: Theme) -> Figure:
    drawn = figure(3.6)
    axes = drawn.subplots()
    floor = max(_RANGE * float(spectrum.before.max()), np.finfo(np.float64).tiny)
    places = np.arange(1, spectrum.before.shape[1] + 1)
    for name, values, color, width in (
        ("before RUN", spectrum.before, theme.second, 4.0),
        ("after RUN", spectrum.after, theme.first, 1.6),
    ):
        low, high = np.quantile(values, [0.1, 0.9], axis=0)
        axes.fill_between(places, _at_least(low, floor), _at_least(high, floor), color=color, alpha=0.18, linewidth=0)
        axes.plot(places, _at_least(values.mean(0), floor), color=color, label=name, linewidth=width)
    axes.set_xscale("log")
    axes.set_yscale("log")
    plain_numbers(axes, "x")
    plain_numbers(axes, "y")
    axes.set(xlabel="place of the singular value", ylabel="singular value", xlim=(0.93, 1.05 * len(places)))
    axes.legend()
    return drawn


def _at_least(values: Doubles, floor: float) -> Doubles:
    return np.maximum(values, floor)
