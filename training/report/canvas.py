"""The look of every chart of a report, on light and on dark pages."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from rankone.training.report.document import Picture, one_line

WIDTH: Final = 9.2
"""Of a chart in inches."""
_DPI: Final = 160
_LONGEST_LABEL: Final = 28


@dataclass(frozen=True)
class Theme:
    """Colours by what they stand for."""

    page: str
    ink: str
    faint: str
    """Of grids, frames and comparisons."""
    first: str
    second: str


LIGHT: Final = Theme(page="#ffffff", ink="#24292f", faint="#c4cad1", first="#2563c9", second="#d9652b")
DARK: Final = Theme(page="#161b22", ink="#d7dde4", faint="#4b535d", first="#6ba4ff", second="#ff9a62")

Draw = Callable[[Theme], Figure]


def rendered(name: str, alt: str, draw: Draw) -> Picture:
    """The picture that `draw` returns, in both themes."""
    return Picture(name, alt, light=_png(draw, LIGHT), dark=_png(draw, DARK), scale=_DPI / 100)


def figure(height: float, width: float = WIDTH) -> Figure:
    """An empty chart; inches."""
    return Figure(figsize=(width, height), layout="constrained")


def shortened(name: str) -> str:
    """A class name as a label: one line of printable characters, at most 28."""
    line = one_line(name)
    return line if len(line) <= _LONGEST_LABEL else f"{line[: _LONGEST_LABEL - 1]}…"


def whole_numbers(axes: Axes) -> None:
    """Only whole numbers along y."""
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def plain_numbers(axes: Axes, axis: str) -> None:
    """0.01 instead of a power of ten, whose mathematical notation is switched off; no minor ticks."""
    getattr(axes, f"{axis}axis").set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    getattr(axes, f"{axis}axis").set_minor_locator(NullLocator())


def _png(draw: Draw, theme: Theme) -> bytes:
    file = io.BytesIO()
    with rc_context(_style(theme)), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing"
        )  # names in any script; the tables show them in full
        draw(theme).savefig(file, dpi=_DPI, format="png", metadata={"Software": None})
    return file.getvalue()


def _style(theme: Theme) -> Any:
    inked = ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.labelcolor", "ytick.labelcolor")
    faint = ("axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
    paper = ("figure.facecolor", "axes.facecolor", "savefig.facecolor")
    return {
        **dict.fromkeys(inked, theme.ink),
        **dict.fromkeys(faint, theme.faint),
        **dict.fromkeys(paper, theme.page),
        "text.parse_math": False,  # a class may be called $x^2$
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.alpha": 0.5,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
    }
