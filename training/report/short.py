"""The section on short embeddings: retrieval by length, and recall against bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matplotlib.figure import Figure

from rankone.model.reduction import ReductionRecord
from rankone.training.report.canvas import Theme, figure, plain_numbers, rendered
from rankone.training.report.document import Block, Picture, Section, Table, Text
from rankone.training.short.figures import LengthFigures, ShortReport

_BYTES: Final = 2
"""Of a number in an index, which keeps float16."""
_LEARNED: Final = {"within-class": "within-class whitening", "pca": "PCA whitening"}


def short(report: ShortReport, record: ReductionRecord | None) -> Section:
    """How well embeddings of each length retrieve, on test images and on classes that the map did not learn from."""
    words = (
        "The first numbers of the output `short`, divided by their length, are an embedding of that length, as `/embed?dim=64` "
        f"returns it. Bytes are of float16, as an index stores them. {_learned(record)}"
    )
    rule = (
        f"Recommended: {report.recommended} numbers, the shortest length whose recall@1 is within one percentage point of the "
        f"best short one{'' if report.unseen is None else ' on unseen classes'}."
    )
    blocks: list[Block] = [Text(words), Text(rule, "note"), recall(report)]
    blocks += [Text("All test images", "heading"), _table(report.test)]
    if report.unseen is None:
        blocks.append(Text("Not measured here: what the map does for classes that it did not learn from.", "note"))
    else:
        unseen = "Each half of the classes among themselves, by a map that was learned from the other half."
        blocks += [Text("Unseen classes", "heading"), Text(unseen), _table(report.unseen)]
    return Section("Short embeddings", blocks)


def recall(report: ShortReport) -> Picture:
    """Recall@1 over the bytes of an embedding, with 95 % intervals; the full embedding is the last point."""
    alt = "Recall at 1 over the bytes of an embedding, for short embeddings of growing length and for the full one."
    return rendered("short", alt, lambda theme: _recall(report, theme))


def _recall(report: ShortReport, theme: Theme) -> Figure:
    drawn = figure(3.4)
    axes = drawn.subplots()
    curves = [("all test images", report.test, theme.first), ("unseen classes", report.unseen, theme.second)]
    for name, found, color in curves:
        if found is None:
            continue
        *shorter, full = found
        sizes = [_BYTES * one.length for one in shorter]
        lows, highs = zip(*(one.intervals["recall_at_1"] for one in shorter), strict=True)
        axes.fill_between(
            sizes, [100 * low for low in lows], [100 * high for high in highs], color=color, alpha=0.15, lw=0
        )
        axes.plot(sizes, [100 * one.recall_at_1 for one in shorter], color=color, marker="o", label=name)
        low, high = full.intervals["recall_at_1"]
        axes.vlines(_BYTES * full.length, 100 * low, 100 * high, color=color, linewidth=1.2)
        axes.plot(_BYTES * full.length, 100 * full.recall_at_1, color=color, marker="s")
    axes.axvline(_BYTES * report.recommended, color=theme.faint, linestyle="dashed", linewidth=1, label="recommended")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted({_BYTES * one.length for one in report.test}))
    plain_numbers(axes, "x")
    axes.set(xlabel="bytes of an embedding (the square is the full one)", ylabel="recall@1 in %", ylim=(None, 101))
    axes.legend(loc="lower right")
    return drawn


def _table(found: Sequence[LengthFigures]) -> Table:
    rows = []
    for one in found:
        cells = [_cell(one, name) for name in ("recall_at_1", "r_precision", "map_at_r")]
        full = " (full)" if one is found[-1] else ""
        rows.append((f"{one.length:,}{full}", f"{_BYTES * one.length:,}", *cells))
    return Table(("numbers", "bytes", "recall@1", "R-precision", "mAP@R"), "rrrrr", rows)


def _cell(one: LengthFigures, name: str) -> str:
    low, high = one.intervals[name]
    return f"{100 * getattr(one, name):.1f} % ({100 * low:.1f} – {100 * high:.1f})"


def _learned(record: ReductionRecord | None) -> str:
    if record is None:
        return ""
    return f"Learned by {_LEARNED[record.method]} from {record.source}; shrinkage {record.shrinkage:g}."
