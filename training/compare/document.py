"""A comparison as a document: what to take, the table, a picture of quality against cost, the recipe, and the method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib import figure as charts
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from rankone.training.compare.measure import Figure
from rankone.training.compare.ranking import By, RankedRow, Ranking
from rankone.training.report.canvas import Theme, figure, plain_numbers, rendered
from rankone.training.report.document import Block, Code, Document, Picture, Section, Table, Text
from rankone.training.report.document import percent as share
from rankone.training.short.figures import BYTES

SCORES: Final[dict[By, str]] = {
    "mean": "mean of accuracy and both recalls",
    "accuracy": "accuracy of a linear classifier",
    "full": "recall@1 of whole embeddings",
    "short": "recall@1 of short embeddings",
}
_APART: Final = 0.045
"""Of the height of a chart, between two numbers beside it."""
_HEAD = ("", "backbone", "pooling", "score", "accuracy", "recall@1, whole", "bytes", "recall@1, short", "bytes", "ms")


def document_of(comparison: Ranking, recipe: str | None) -> Document:
    """The document; `recipe` is the recommended one as YAML, if there is one."""
    notes: list[Block] = [Text(note, "warning") for note in comparison.notes]
    first = Section("Recommendation", [*notes, Text(advice(comparison))])
    table = Section("Ranking", [Text(_reading(comparison), "note"), _table(comparison), quality(comparison)])
    about = Section("How it was measured", [Text(words) for words in _method(comparison)])
    given = [] if recipe is None else [Section("Recipe", [Code("recipe.yaml", recipe)])]
    images = f"{comparison.num_train:,} images to fit to, {comparison.num_test:,} to test with"
    subtitle = f"{images}, {comparison.num_classes:,} classes, {comparison.size} x {comparison.size}"
    return Document(f"Poolings compared on {comparison.data}", subtitle, [first, table, *given, about])


def advice(comparison: Ranking) -> str:
    """Which row to take and why, in some sentences."""
    if comparison.recommended is None:
        return "Nothing that was compared can be exported; compare others too."
    chosen, best = comparison.places[comparison.recommended], comparison.places[0]
    tied = sum(place.is_as_good for place in comparison.places)
    where = f"{chosen.row.title}: {_score(chosen)}, {chosen.row.bytes:,} bytes a vector"
    if chosen is best and tied == 1:
        return f"Take {where}. It is better than every other."
    if chosen is best:
        return (
            f"Take {where}. It has the best score. {_others(tied - 1)} as good within the error; of all that can be exported, "
            "it also has the shortest vector."
        )
    if not chosen.is_as_good:
        return f"Take {where}. What is better cannot be exported."
    return (
        f"Take {where}. The best score is that of {best.row.title}: {_score(best)}. {_others(tied - 1)} as good within the "
        "error; of those that can be exported, this one has the shortest vector."
    )


def _others(count: int) -> str:
    return "One other row is" if count == 1 else f"{count} other rows are"


def _table(comparison: Ranking) -> Table:
    rows = []
    for number, place in enumerate(comparison.places):
        row = place.row
        mark = "*" if number == comparison.recommended else "=" if place.is_as_good else ""
        short, size = ("", "") if row.short is None else (percent(row.short), f"{row.short_bytes:,}")
        name = row.pooling + ("" if row.exportable else " (no export)")
        figures = (_score(place), percent(row.accuracy), percent(row.full), f"{row.bytes:,}", short, size)
        times = f"{row.backbone_ms:.0f} + {row.pooling_ms:.2f}"
        rows.append((f"{number + 1}{mark}", row.backbone, name, *figures, times))
    return Table(_HEAD, "rllrrrrrrr", rows)


def percent(figure: Figure) -> str:
    """A mean with its interval."""
    return share(figure.mean, (figure.low, figure.high))


def _score(place: RankedRow) -> str:
    return share(place.score, (place.low, place.high))


def _reading(comparison: Ranking) -> str:
    return (
        f"Ranked by the {SCORES[comparison.by]}. * is recommended; = cannot be told from the best on these images: the 95 % "
        "interval of the difference, image by image, holds 0. In brackets, 95 % intervals over the test images."
    )


def _method(comparison: Ranking) -> list[str]:
    rows = [place.row for place in comparison.places]
    lengths = sorted({row.short_dim for row in rows if row.short_dim is not None})
    disjoint = (
        "Recall@1: test images of each half of the classes are queries against each other, by cosine; the map to short "
        "embeddings was learned from training images of the other half."
        if all(row.is_disjoint for row in rows)
        else "Recall@1: test images are queries against each other, by cosine."
    )
    numbers = " or ".join(map(str, lengths))
    return [
        "Nothing was trained: the backbone is as its weights are, and fine-tuning changes the figures.",
        "Accuracy: a linear classifier on the embeddings of the training images, solved by L-BFGS until it converged; the "
        "penalty is the one that makes the fewest errors on images that were not fitted.",
        disjoint
        + (f" Short embeddings have {numbers} numbers." if lengths else " There were too few images for short ones."),
        "Bytes: two for each number, as an index stores it. Milliseconds: the backbone on one image, plus the pooling in a "
        f"batch of 16; {comparison.machine}.",
    ]


def quality(comparison: Ranking) -> Picture:
    """Recall@1 over bytes, short and whole, and the score that ranks over milliseconds; numbers are those of the table."""
    alt = (
        "Two charts of all that was compared, numbered as in the table: recall at 1 over the bytes of a vector, short and "
        f"whole; and {SCORES[comparison.by]} over the milliseconds of an image, with 95 % intervals."
    )
    return rendered("quality", alt, lambda theme: _quality(comparison, theme))


def _quality(comparison: Ranking, theme: Theme) -> charts.Figure:
    drawn = figure(5.4)
    bytes_, times = drawn.subplots(1, 2)
    _over_bytes(bytes_, comparison.places, theme)
    _over_times(times, comparison, theme)
    chosen = comparison.recommended
    names = [
        f"{number + 1} {_name(comparison, place)}{' (recommended)' if number == chosen else ''}"
        for number, place in enumerate(comparison.places)
    ]
    invisible = [Line2D([], [], linestyle="")] * len(names)
    drawn.legend(invisible, names, loc="outside lower center", ncols=4, fontsize=8, handlelength=0)
    return drawn


def _over_bytes(axes: Axes, places: Sequence[RankedRow], theme: Theme) -> None:
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
    _number(axes, [(place.row.bytes, 100 * place.row.full.mean) for place in places])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set(xlabel=f"bytes of a vector ({BYTES} a number)", ylabel="recall@1 in %", title="retrieval over size")


def _over_times(axes: Axes, comparison: Ranking, theme: Theme) -> None:
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
    unit = "milliseconds of the pooling, an image" if one_backbone else "milliseconds of an image"
    axes.set(xlabel=unit, ylabel="%", title=SCORES[comparison.by])
    _number(axes, points)


def _number(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """A logarithmic abscissa, a legend, and the number of each point to its right, moved apart where points are near."""
    axes.set_xscale("log")
    plain_numbers(axes, "x")
    axes.margins(x=0.12)
    axes.legend(loc="lower center", ncols=2)
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


def _name(comparison: Ranking, place: RankedRow) -> str:
    several = len({one.row.backbone for one in comparison.places}) > 1
    return place.row.title if several else place.row.pooling
