"""A table as a picture, with our figures on the left and the paper's on the right."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.paper.book import Filled
from benchmarks.paper.measure import Measured
from benchmarks.paper.page import heading
from benchmarks.paper.tables import DATA_SETS


def plot(filled: Filled, path: Path) -> None:
    """Writes the picture as PNG."""
    draw(filled).savefig(path, dpi=110, metadata={"Software": None})


def draw(filled: Filled) -> Figure:
    """The picture, with a right half if the paper has figures."""
    papers = any(name in row.paper for row in filled.table.rows for name in (*DATA_SETS, "ms"))
    figure = Figure(figsize=(11 if papers else 6.5, 4.2), layout="constrained")
    ours, *rest = figure.subplots(1, 2 if papers else 1, squeeze=False)[0]
    _DRAW[filled.table.kind](ours, filled)
    ours.set_title(f"ours: {filled.plan.data.name}")
    if rest:
        _paper(rest[0], filled)
        rest[0].set_title("the paper")
    figure.suptitle(f"{heading(filled)}: {filled.table.title}", fontsize=10)
    return figure


def _accuracy(axes: Axes, filled: Filled) -> None:
    """A curve over the rows of every series, or bars for systems; whiskers from the lowest to the highest."""
    rows = filled.table.rows
    solvers = {"": filled.measured} if not filled.solved else {"SGD": filled.measured, "L-BFGS": filled.solved}
    for place, (solver, measured) in enumerate(solvers.items()):
        for series in dict.fromkeys(row.series for row in rows):
            members = [row for row in rows if row.series == series]
            values = [[one.metrics["top1"] for one in measured[row.title]] for row in members]
            middles = [mean(value) for value in values]
            whiskers = [[mean(value) - min(value) for value in values], [max(value) - mean(value) for value in values]]
            labels, name = [row.label for row in members], f"{series} {solver}".strip() or None
            if filled.table.axis:
                style = "--" if place else "-"
                axes.errorbar(labels, middles, yerr=whiskers, marker="o", linestyle=style, capsize=3, label=name)
            else:
                height = 0.8 / len(solvers)
                heights = [number + height * (place - (len(solvers) - 1) / 2) for number in range(len(labels))]
                axes.barh(heights, middles, height, xerr=whiskers, capsize=2, label=name)
                axes.set_yticks(range(len(labels)), labels)
    if not filled.table.axis:
        axes.invert_yaxis()
    _name_axes(axes, filled, "test accuracy")


def _paper(axes: Axes, filled: Filled) -> None:
    if filled.table.kind == "cost":
        rows = [row for row in filled.table.rows if "ms" in row.paper]
        axes.barh([row.label for row in rows], [float(row.paper["ms"]) for row in rows], log=True, color="tab:gray")
        axes.invert_yaxis()
        axes.set_xlabel("ms, batch of 32 on four K40")
        return
    for name in DATA_SETS:
        members = [row for row in filled.table.rows if name in row.paper]
        labels, values = [row.title for row in members], [float(row.paper[name]) for row in members]
        if filled.table.axis:
            axes.plot(labels, values, marker="o", label=name)
        else:
            axes.plot(values, labels, marker="o", linestyle="", label=name)
    if not filled.table.axis:
        axes.invert_yaxis()
    _name_axes(axes, filled, "accuracy in percent")
    axes.legend()


def _cost(axes: Axes, filled: Filled) -> None:
    costs = [(row.label, filled.costs[row.contender]) for row in filled.table.rows if row.contender]
    whiskers = [
        [cost.median_ms - cost.low_ms for _, cost in costs],
        [cost.high_ms - cost.median_ms for _, cost in costs],
    ]
    axes.barh([label for label, _ in costs], [cost.median_ms for _, cost in costs], xerr=whiskers, capsize=2, log=True)
    axes.invert_yaxis()
    axes.set_xlabel(f"ms, batch of {costs[0][1].batch}, {costs[0][1].device}")


def _ratio(axes: Axes, filled: Filled) -> None:
    for row in filled.table.rows:
        ratios = [one.mean_ratio for one in filled.measured[row.title]]
        axes.barh(row.label, mean(ratios), color="tab:blue")
        axes.plot(ratios, [row.label] * len(ratios), "k.")
    axes.invert_yaxis()
    axes.set_xlabel("mean sigma1 / sigma2 of the test images")


def _scatter(axes: Axes, filled: Filled) -> None:
    values = [value for several in filled.measured.values() for one in several for value in one.singular_values or ()]
    for label, first, second in (("before RUN", 0, 1), ("after RUN", 2, 3)):
        axes.scatter([value[first] for value in values], [value[second] for value in values], s=6, label=label)
    axes.set_xlabel("sigma1")
    axes.set_ylabel("sigma2")
    axes.legend()


def _curve(axes: Axes, filled: Filled) -> None:
    for row in filled.table.rows:
        histories = [_accuracies(one) for one in filled.measured[row.title]]
        values = list(zip(*histories, strict=False))
        epochs = range(1, len(values) + 1)
        (line,) = axes.plot(epochs, list(map(mean, values)), label=row.label)
        lowest, highest = list(map(min, values)), list(map(max, values))
        axes.fill_between(epochs, lowest, highest, color=line.get_color(), alpha=0.15)
    axes.set_xlabel("epoch, phase 2 after phase 1")
    axes.set_ylabel("held-out accuracy")
    axes.legend()


def _accuracies(measured: Measured) -> list[float]:
    """By epoch: on the held-out images, or on the training images if none are held out."""
    return [1 - (e.train_error if e.validation_error is None else e.validation_error) for e in measured.history]


def _name_axes(axes: Axes, filled: Filled, value: str) -> None:
    axes.grid(alpha=0.3)
    if filled.table.axis:
        axes.set_xlabel(filled.table.axis)
        axes.set_ylabel(value)
    else:
        axes.set_xlabel(value)
    if axes.get_legend_handles_labels()[1]:
        axes.legend()


_DRAW = {"accuracy": _accuracy, "cost": _cost, "ratio": _ratio, "scatter": _scatter, "curve": _curve}
