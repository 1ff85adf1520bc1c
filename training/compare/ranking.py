"""Ranks what was measured: the order, the rows that equal the best, and the one to recommend.

Two rows are compared image by image: the interval of the mean difference is much narrower than those of the means, as the same
images are hard for both. A row is as good as the best if the 95 % interval of the difference holds 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from rankone.training.compare.measure import Figure, Row
from rankone.training.metrics import Doubles, interval, resampled_means

By = Literal["mean", "accuracy", "full", "short"]
"""The figure that ranks: one of a row's, or for every image the mean of all that there are."""


class RankedRow(BaseModel):
    """A row's place in the ranking."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    row: Row
    score: float
    low: float
    high: float
    behind: tuple[float, float]
    """95 % interval of how much the best row has more."""

    @property
    def is_as_good(self) -> bool:
        """Whether the test images cannot tell it from the best."""
        return self.behind[0] <= 0


class Ranking(BaseModel):
    """All rows in their order, the best first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str
    num_classes: int
    num_train: int
    num_validation: int
    num_test: int
    size: int
    by: By
    places: tuple[RankedRow, ...]
    recommended: int | None
    """Number of the place to take; None if nothing compared can be exported."""
    notes: tuple[str, ...] = ()
    """What a reader has to know, a sentence each."""
    machine: str


def ranked(rows: Sequence[Row], by: By) -> tuple[RankedRow, ...]:
    """The rows in the order of their score."""
    scores = np.stack([_scores(row, by) for row in rows], axis=1)
    order = np.argsort(-scores.mean(axis=0), kind="stable")
    means = resampled_means(scores)
    best = order[0]
    places = []
    for number in order:
        low, high = interval(means[:, number])
        behind = interval(means[:, best] - means[:, number])
        score = float(scores[:, number].mean())
        places.append(RankedRow(row=rows[number], score=score, low=low, high=high, behind=behind))
    return tuple(places)


def recommended(places: Sequence[RankedRow]) -> int | None:
    """Of those that are as good as the best and can be exported, the one with the fewest bytes; of equal ones the fastest."""
    fit = [number for number, place in enumerate(places) if place.is_as_good and place.row.exportable]
    if not fit:  # the best cannot be exported, and all that can is worse
        fit = [number for number, place in enumerate(places) if place.row.exportable][:1]
    return min(fit, key=lambda number: (places[number].row.bytes, places[number].row.ms), default=None)


def _scores(row: Row, by: By) -> Doubles:
    """Image by image, (n,)."""
    figures: dict[str, Figure | None] = {"accuracy": row.accuracy, "full": row.full, "short": row.short}
    chosen = [figure for name, figure in figures.items() if by in ("mean", name) and figure is not None]
    if not chosen:  # short embeddings that could not be learned
        chosen = [row.full]
    outcomes = np.array([[float(one) for one in figure.outcomes] for figure in chosen])
    return np.asarray(outcomes.mean(axis=0))
