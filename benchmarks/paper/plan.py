"""The paper's tables and figures as lists of rows: what each row trains or times, and what the paper printed there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rankone.training.recipe import PoolingRecipe

DATA_SETS: Final = ("CUB", "Airplane", "MIT", "DTD")
"""The columns of the paper's accuracies, in percent."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of a table.

    Attributes:
        label: what stands in its first column.
        series: which curve it belongs to, where a table has several.
        pooling: what is trained, at every seed.
        changes: fields of the recipe that differ in this row.
        contender: what is timed, a name of `benchmarks.normalization.contenders`.
        paper: the paper's figures of the line, by column.
    """

    label: str
    pooling: PoolingRecipe
    series: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    contender: str | None = None
    paper: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Series and label."""
        return f"{self.series} {self.label}".strip()


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table or figure of the paper.

    Attributes:
        title: what it asks.
        rows: its lines.
        kind: what is shown of a row: accuracy; cost, which is accuracy with FLOPs and time; ratio of the first two singular
            values; scatter of these; curve of accuracy over epochs.
        axis: what the rows differ in, for a curve over rows; none for a bar chart.
        fast: fields of the recipe that differ under `--fast`.
    """

    title: str
    rows: tuple[Row, ...]
    kind: str = "accuracy"
    axis: str | None = None
    fast: Mapping[str, Any] = field(default_factory=dict)


def _run(system: str = "bp-run", **options: float) -> PoolingRecipe:
    return PoolingRecipe(system=system, options=options)


def _accuracies(*percents: float) -> dict[str, str]:
    return {name: f"{percent:.1f}" for name, percent in zip(DATA_SETS, percents, strict=False)}


_ETA: Final = {
    0.0: (84.1, 88.9, 79.8, 65.6),
    0.6: (86.3, 89.8, 80.8, 68.7),
    1.0: (86.4, 89.8, 80.9, 68.3),
    2.0: (83.9, 89.0, 79.7, 65.7),
}
_K: Final = {1: 85.7, 2: 86.3, 3: 86.2, 5: 86.2, 10: 86.1}
_DIM: Final = {1000: 83.8, 2000: 83.9, 4000: 84.8, 8000: 85.5, 10_000: 85.7}
_SYSTEMS: Final[Mapping[str, tuple[float, ...]]] = {
    "max": (69.6, 78.9, 50.4, 55.1),
    "sum": (71.7, 82.1, 58.7, 58.2),
    "bp-run": (86.3, 89.8, 80.8, 68.4),
    "cbp-run": (85.7, 91.0, 80.5, 67.3),
}
_NAMES: Final = (
    *("max", "sum", "bcnn", "improved-bcnn", "bcnn-ns", "o2p", "mpn-cov", "isqrt-cov", "g2denet", "cbp-ts", "cbp-rm"),
    *("lrbp", "monet-2", "monet", "bp-run", "cbp-run", "cbp-run-rm"),
)
_FINE_TUNED: Final = {"phase2": {"epochs": 3}}
_HELD_OUT: Final = {"phase2": {"epochs": 3}, "validation": 0.25}

TABLES: Final[Mapping[str, Table]] = {
    "3": Table(
        title="Mean ratio of the first two singular values of the local features, after the first and the last epoch",
        kind="ratio",
        rows=tuple(
            Row(label=f"{name}, {when} epoch", pooling=PoolingRecipe(system=name), changes=changes)
            for name in ("bcnn", "bp-run")
            for when, changes in (("first", {"phase2": {"epochs": 1}}), ("last", {}))
        ),
        fast=_FINE_TUNED,
    ),
    "4": Table(
        title="Influence of eta, BP + RUN",
        axis="eta",
        rows=tuple(
            Row(label=f"{eta}", pooling=_run(eta=eta), paper=_accuracies(*_ETA.get(eta, ())))
            for eta in (0.0, 0.3, 0.6, 1.0, 1.5, 2.0)
        ),
    ),
    "5": Table(
        title="Influence of the number of iterations K, BP + RUN",
        axis="K",
        rows=tuple(
            Row(label=f"{k}", pooling=_run(iterations=k), paper=_accuracies(percent)) for k, percent in _K.items()
        ),
    ),
    "6": Table(
        title="Cost of normalization",
        kind="cost",
        rows=(
            Row(
                label="SVD",
                pooling=PoolingRecipe(system="improved-bcnn"),
                contender="SVD of F",
                paper={"FLOPs": "1.88 G", "ms": "6731"},
            ),
            Row(label="eigenvalues", pooling=PoolingRecipe(system="improved-bcnn"), contender="eigenvalues of G"),
            Row(
                label="Newton-Schulz",
                pooling=PoolingRecipe(system="bcnn-ns"),
                contender="Newton-Schulz",
                paper={"FLOPs": "4.03 G", "ms": "833"},
            ),
            Row(label="RUN on F", pooling=_run(), contender="RUN on F", paper={"FLOPs": "3.2 M", "ms": "2.5"}),
            Row(label="RUN on G", pooling=_run(), contender="RUN on G"),
        ),
    ),
    "7": Table(
        title="Tensor Sketch against Random Maclaurin over the dimension, CBP + RUN",
        axis="dimension",
        rows=tuple(
            Row(
                label=f"{dim}",
                series=sketch,
                pooling=_run(system, dim=dim),
                paper=_accuracies(_DIM[dim]) if sketch == "TS" else {},
            )
            for sketch, system in (("TS", "cbp-run"), ("RM", "cbp-run-rm"))
            for dim in _DIM
        ),
    ),
    "8": Table(
        title="MoNet-2 against CBP + RUN",
        kind="cost",
        rows=(
            Row(
                label="MoNet-2",
                pooling=PoolingRecipe(system="monet-2"),
                contender="MoNet-2",
                paper={"FLOPs": "4.21 G", "ms": "13850"},
            ),
            Row(
                label="CBP + RUN",
                pooling=_run("cbp-run"),
                contender="CBP + RUN",
                paper={"FLOPs": "3.2 M", "ms": "2.5"},
            ),
        ),
    ),
    "9": Table(
        title="All poolings",
        rows=tuple(
            Row(label=name, pooling=PoolingRecipe(system=name), paper=_accuracies(*_SYSTEMS.get(name, ())))
            for name in _NAMES
        ),
    ),
    "figure2": Table(
        title="First and second singular value of the local features of every test image, before and after RUN",
        kind="scatter",
        rows=(Row(label="BP + RUN", pooling=_run()),),
    ),
    "figure4": Table(
        title="Accuracy on held-out images over the epochs of both phases",
        kind="curve",
        rows=tuple(
            Row(label=name, pooling=PoolingRecipe(system=name)) for name in ("bcnn", "bcnn-ns", "bp-run", "cbp-run")
        ),
        fast=_HELD_OUT,
    ),
}
