"""Retrieval by short embeddings, length by length: on test images, and on classes that the map did not learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from rankone.model.reduction import Floats, Ints, lengths_up_to, shorten
from rankone.training.metrics import intervals, retrieval_scores
from rankone.training.short.learning import Learned

BYTES: Final = 2
"""Of a number in an index, which keeps float16."""
FLAT: Final = 0.01
"""See `recommended`."""
_FIGURES: Final = ("recall_at_1", "r_precision", "map_at_r")


class LengthFigures(BaseModel):
    """Retrieval by embeddings of one length, in [0, 1], with 95 % intervals."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    length: int
    recall_at_1: float
    r_precision: float
    map_at_r: float
    intervals: dict[str, tuple[float, float]]


class ShortReport(BaseModel):
    """Retrieval by length on test images; the last of each list is the full embedding."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    test: list[LengthFigures]
    """All test images, by the map of the bundle."""
    unseen: list[LengthFigures] | None
    """Test images of each half of the classes among themselves, by the map learned from the other half."""
    recommended: int


def measure(embeddings: Floats, labels: Ints, learned: Learned) -> ShortReport:
    """The figures by length for test embeddings (n, d) with their labels (n,)."""
    lengths = lengths_up_to(learned.reduction.dim)
    test = figures(by_length(embeddings, learned.reduction(embeddings), lengths), [labels])
    unseen = None
    if learned.halves is not None:
        parts = [np.flatnonzero(labels % 2 != side) for side in (0, 1)]
        shared = [length for length in lengths if length <= min(half.dim for half in learned.halves)]
        if shared and all(len(part) for part in parts):
            rows = [embeddings[part] for part in parts]
            cuts = [by_length(own, half(own), shared) for own, half in zip(rows, learned.halves, strict=True)]
            unseen = figures(
                [[*first, *second] for first, second in zip(*cuts, strict=True)], [labels[part] for part in parts]
            )
    return ShortReport(test=test, unseen=unseen, recommended=recommended(unseen or test))


def measure_outputs(embeddings: Floats, short: Floats, labels: Ints) -> ShortReport:
    """The figures by length for what an engine answered: there are none on unseen classes."""
    test = figures(by_length(embeddings, short, lengths_up_to(short.shape[1])), [labels])
    return ShortReport(test=test, unseen=None, recommended=recommended(test))


def by_length(embeddings: Floats, short: Floats, lengths: Sequence[int]) -> list[list[Floats]]:
    """One set of vectors a length: the short embeddings (n, m), and the full ones as the last, which may be as long."""
    return [*([shorten(short, length)] for length in lengths), [embeddings]]


def figures(vectors: Sequence[Sequence[Floats]], labels: Sequence[Ints]) -> list[LengthFigures]:
    """The figures of each length, as means over the queries of several sets of vectors, each searched within itself."""
    found = []
    for sets in vectors:
        scored = [retrieval_scores(rows, own) for rows, own in zip(sets, labels, strict=True)]
        scores = {name: np.concatenate([one[name] for one in scored]) for name in _FIGURES}
        means = {name: float(values.mean()) for name, values in scores.items()}
        found.append(LengthFigures(length=sets[0].shape[1], intervals=intervals(scores), **means))
    return found


def recommended(found: Sequence[LengthFigures]) -> int:
    """Where the curve flattens: the shortest length whose recall@1 is within 0.01 of the best short one. The last is full."""
    best = max(one.recall_at_1 for one in found[:-1])
    return next(one.length for one in found[:-1] if one.recall_at_1 >= best - FLAT)
