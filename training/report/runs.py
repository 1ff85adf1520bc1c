"""Several runs side by side: the rows of their table, one plot of all, and a page with both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import cycle
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankone.model.training_record import EpochRecord
from rankone.training.report.canvas import Theme, figure, rendered, shortened
from rankone.training.report.document import Block, Document, Picture, Section, Table, Text, html
from rankone.training.runs import DIFFERENCES, HEAD, NOTE, RunComparison, Summary, difference_rows, rows

_COLORS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#999933")
"""Okabe and Ito's, which colour-blind readers tell apart and which both themes show, with two more."""
_LINES: Final = ("solid", "dashed", "dotted")


def page(comparison: RunComparison) -> str:
    """One self-contained HTML file."""
    runs = comparison.runs
    blocks: list[Block] = [Text(words, "warning") for words in comparison.remarks]
    blocks.append(Text(NOTE))
    blocks.append(Table(HEAD, "lllllrrrrrrr", rows(runs)))
    blocks += [Text(f"{run.name}: {remark}.", "note") for run in runs for remark in run.remarks]
    sections = [Section("Runs", blocks)]
    if any(run.history for run in runs):
        sections.append(Section("Epochs", [plot(runs)]))
    if comparison.differences:
        names = list(next(iter(comparison.differences.values())))
        table = Table((DIFFERENCES, *names), "l" * (1 + len(names)), difference_rows(comparison))
        sections.append(Section("Differences", [table]))
    when = f"{datetime.now(UTC):%Y-%m-%d}"
    return html(Document(f"{len(runs)} runs", f"compared on {when} by rankone runs", sections))


def plot(runs: Sequence[Summary]) -> Picture:
    """Loss and accuracy over the epochs of both phases, a line a run; a dot marks where phase 2 begins."""
    alt = (
        f"Two charts with a line for each of {len(runs)} runs: loss on training images, and accuracy on the images that "
        "select the epoch (on training images where there are none), over the epochs of both phases. Dots mark the first "
        "epoch of phase 2."
    )
    return rendered("runs", alt, lambda theme: draw(runs, theme))


def draw(runs: Sequence[Summary], theme: Theme) -> Figure:
    """The chart of `plot` in one theme."""
    drawn = figure(3.8)
    loss, accuracy = drawn.subplots(1, 2)
    shown = [run for run in runs if run.history]
    styles = zip(cycle(_COLORS), (line for line in cycle(_LINES) for _ in _COLORS))
    for run, (color, line) in zip(shown, styles, strict=False):
        options: dict[str, Any] = {"color": color, "linestyle": line, "label": shortened(run.name)}
        _curve(loss, run, lambda epoch: epoch.loss, options)
        _curve(accuracy, run, _accuracy, options)
    for axes, title in ((loss, "loss"), (accuracy, "accuracy in %")):
        axes.set(title=title, xlabel="epoch of both phases")
        axes.set_xlim(left=0.5)
    loss.set_ylim(bottom=0)
    accuracy.set_ylim(top=101)
    handles, labels = loss.get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), labelcolor=theme.ink)
    return drawn


def _accuracy(epoch: EpochRecord) -> float:
    error = epoch.train_error if epoch.validation_error is None else epoch.validation_error
    return 100 * (1 - error)


def _curve(axes: Axes, run: Summary, value: Callable[[EpochRecord], float], options: dict[str, Any]) -> None:
    values = [value(epoch) for epoch in run.history]
    first = next((place for place, epoch in enumerate(run.history) if epoch.phase == 2), None)
    marked = [] if first is None else [first]
    if len(values) == 1:
        marked = [0]
    axes.plot(range(1, len(values) + 1), values, marker="o", markersize=4, markevery=marked, **options)
