"""The paper's tables and figures: what each row trains or times, and the figures that the paper printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.paper.plan import Row, Table, TableError
from rankone.training.recipe import PoolingRecipe

DATA_SETS: Final = ("CUB", "Airplane", "MIT", "DTD")
"""The columns of the paper's accuracies, in percent."""


def check_names(names: Sequence[str]) -> None:
    """Raises TableError for an unknown table."""
    for name in names:
        if name not in TABLES:
            raise TableError(f"there is no table {name!r}; there are: {', '.join(TABLES)}")


def _row(label: object, system: str, percents: Sequence[float] = (), series: str = "", **options: float) -> Row:
    """A row with the paper's accuracies."""
    paper = {name: f"{percent:.1f}" for name, percent in zip(DATA_SETS, percents, strict=False)}
    return Row(label=f"{label}", pooling=PoolingRecipe(system=system, options=options), series=series, paper=paper)


def _cost(label: str, system: str, contender: str, flops: str = "", milliseconds: str = "") -> Row:
    """A row with the paper's FLOPs and time."""
    paper = {"FLOPs": flops, "ms": milliseconds} if flops else {}
    return Row(label=label, pooling=PoolingRecipe(system=system), contender=contender, paper=paper)


_ETA: Final[Mapping[float, tuple[float, ...]]] = {
    0.0: (84.1, 88.9, 79.8, 65.6),
    0.3: (),
    0.6: (86.3, 89.8, 80.8, 68.7),
    1.0: (86.4, 89.8, 80.9, 68.3),
    1.5: (),
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
_FINE_TUNED: Final[Mapping[str, Any]] = {"phase2": {"epochs": 3}}
_EPOCHS: Final[Mapping[str, Mapping[str, Any]]] = {"first": {"phase2": {"epochs": 1}}, "last": {}}

_SOLVERS: Final = ("sgd", "lbfgs")
"""Beside each other where accuracies are compared: a pooling should not be judged by what gradient descent makes of it."""

TABLES: Final[Mapping[str, Table]] = {
    "3": Table(
        title="Mean ratio of the first two singular values of the local features, after the first and the last epoch",
        kind="ratio",
        rows=tuple(
            Row(label=f"{name}, {when} epoch", pooling=PoolingRecipe(system=name), changes=changes)
            for name in ("bcnn", "bp-run")
            for when, changes in _EPOCHS.items()
        ),
        fast=_FINE_TUNED,
    ),
    "4": Table(
        title="Influence of eta, BP + RUN",
        axis="eta",
        rows=tuple(_row(eta, "bp-run", percents, eta=eta) for eta, percents in _ETA.items()),
        solvers=_SOLVERS,
    ),
    "5": Table(
        title="Influence of the number of iterations K, BP + RUN",
        axis="K",
        rows=tuple(_row(k, "bp-run", [percent], iterations=k) for k, percent in _K.items()),
        solvers=_SOLVERS,
    ),
    "6": Table(
        title="Cost of normalization",
        kind="cost",
        rows=(
            _cost("SVD", "improved-bcnn", "SVD of F", "1.88 G", "6731"),
            _cost("eigenvalues", "improved-bcnn", "eigenvalues of G"),
            _cost("Newton-Schulz", "bcnn-ns", "Newton-Schulz", "4.03 G", "833"),
            _cost("RUN on F", "bp-run", "RUN on F", "3.2 M", "2.5"),
            _cost("RUN on G", "bp-run", "RUN on G"),
        ),
    ),
    "7": Table(
        title="Tensor Sketch against Random Maclaurin over the dimension, CBP + RUN",
        axis="dimension",
        rows=(
            *(_row(dim, "cbp-run", [percent], "TS", dim=dim) for dim, percent in _DIM.items()),
            *(_row(dim, "cbp-run-rm", (), "RM", dim=dim) for dim in _DIM),
        ),
        solvers=_SOLVERS,
    ),
    "8": Table(
        title="MoNet-2 against CBP + RUN",
        kind="cost",
        rows=(
            _cost("MoNet-2", "monet-2", "MoNet-2", "4.21 G", "13850"),
            _cost("CBP + RUN", "cbp-run", "CBP + RUN", "3.2 M", "2.5"),
        ),
    ),
    "9": Table(
        title="All poolings",
        rows=tuple(_row(name, name, _SYSTEMS.get(name, ())) for name in _NAMES),
        solvers=_SOLVERS,
    ),
    "figure2": Table(
        title="First and second singular value of the local features of every test image, before and after RUN",
        kind="scatter",
        rows=(_row("BP + RUN", "bp-run"),),
    ),
    "figure4": Table(
        title="Accuracy on held-out images over the epochs of both phases",
        kind="curve",
        rows=tuple(_row(name, name) for name in ("bcnn", "bcnn-ns", "bp-run", "cbp-run")),
        fast={**_FINE_TUNED, "validation": 0.25},
    ),
}
