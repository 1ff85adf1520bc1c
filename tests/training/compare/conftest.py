from __future__ import annotations

import numpy as np
import pytest

from rankone.model.training_record import FitRecord, SolverRecord
from rankone.training.compare.measure import Figure, Row

FIT = FitRecord(
    final=SolverRecord(strength=1e-3, iterations=9, gradient=1e-5, converged=True, loss=0.1, train_error=0.0),
    chosen_by="nobody",
)


def outcomes(right: int, count: int = 100) -> Figure:
    """The first `right` of `count` images are right."""
    return Figure.of((np.arange(count) < right).astype(np.float32))


def row(
    pooling: str,
    accuracy: int,
    full: int,
    short: int | None,
    *,
    dim: int = 512,
    exportable: bool = True,
    ms: float = 10.0,
    backbone: str = "vgg16",
) -> Row:
    """A row on 100 test images."""
    return Row(
        backbone=backbone,
        weights="file",
        pooling=pooling,
        exportable=exportable,
        dim=dim,
        accuracy=outcomes(accuracy),
        full=outcomes(full),
        short=None if short is None else outcomes(short),
        short_dim=None if short is None else 128,
        is_disjoint=True,
        fit=FIT,
        backbone_ms=ms,
        pooling_ms=1.0,
    )


@pytest.fixture
def rows() -> list[Row]:
    return [
        row("sum", 60, 70, 80, dim=512),
        row("cbp-run", 90, 91, 92, dim=10_000),
        row("bcnn", 90, 92, 92, dim=262_144),
        row("monet-2", 91, 92, 93, dim=10_000, exportable=False),
    ]
