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
    test = figures([(embeddings, learned.reduction(embeddings), labels)], lengths)
    unseen = None
    if learned.halves is not None:
        sides = [np.flatnonzero(labels % 2 != side) for side in (0, 1)]
        shared = [length for length in lengths if length <= min(half.dim for half in learned.halves)]
        if shared and all(len(side) for side in sides):
            parts = [(embeddings[side], labels[side], half) for side, half in zip(sides, learned.halves, strict=True)]
            unseen = figures([(rows, half(rows), own) for rows, own, half in parts], shared)
    return ShortReport(test=test, unseen=unseen, recommended=recommended(unseen or test))


def measure_outputs(embeddings: Floats, short: Floats, labels: Ints) -> ShortReport:
    """The figures by length for what an engine answered: there are none on unseen classes."""
    test = figures([(embeddings, short, labels)], lengths_up_to(short.shape[1]))
    return ShortReport(test=test, unseen=None, recommended=recommended(test))


def figures(parts: Sequence[tuple[Floats, Floats, Ints]], lengths: Sequence[int]) -> list[LengthFigures]:
    """The figures of short embeddings of each length and, last, of the full ones, which may be as long.

    `parts` are full embeddings (n, d), short ones (n, m) and labels (n,), each searched within itself; the figures are means
    over all queries.
    """
    found = []
    for length in (*lengths, None):
        scored = [
            retrieval_scores(full if length is None else shorten(short, length), labels)
            for full, short, labels in parts
        ]
        scores = {name: np.concatenate([one[name] for one in scored]) for name in _FIGURES}
        means = {name: float(values.mean()) for name, values in scores.items()}
        dim = parts[0][0].shape[1] if length is None else length
        found.append(LengthFigures(length=dim, intervals=intervals(scores), **means))
    return found


def recommended(found: Sequence[LengthFigures]) -> int:
    """Where the curve flattens: the shortest length whose recall@1 is within 0.01 of the best short one. The last is full."""
    best = max(one.recall_at_1 for one in found[:-1])
    return next(one.length for one in found[:-1] if one.recall_at_1 >= best - FLAT)
