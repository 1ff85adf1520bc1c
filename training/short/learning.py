"""Learns short embeddings, and how far to shrink, from embeddings of images.

Classes are divided in two by the parity of their labels. A map learned from one half is measured on the other half: that
chooses the shrinkage and, on test images, shows what short embeddings do for classes that come later. A run keeps all three
maps between its training and its export.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save as serialize

from rankone.model.reduction import (
    LENGTHS,
    Components,
    Doubles,
    Floats,
    Ints,
    Reduction,
    ReductionRecord,
    components,
    lengths_up_to,
    whitening,
    within_class,
)
from rankone.training.metrics import retrieval_scores
from rankone.training.run import SHORT, replace_file

SHRINKAGES: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
DEFAULT_SHRINKAGE: Final = 0.1
"""Where there are too few classes to choose one."""
_MAX_NUMBERS: Final = 1 << 24
"""Of the matrix: 64 MB in each exported form. Only embeddings of more than 32,768 numbers are affected."""
_CHOSEN_AT: Final = 128
"""The length at which the shrinkage is chosen."""
_ABOUT: Final = ("shrinkage", "method", "source", "num_images", "num_classes")
_HALVES: Final = ("half0", "half1")


@dataclass(frozen=True)
class Examples:
    """Embeddings (n, d) to learn from: views of images, each view with its image (n,) and its class (n,), if known."""

    embeddings: Floats
    images: Ints
    labels: Ints | None
    source: str
    """Which images they are, in words."""

    @property
    def method(self) -> Literal["within-class", "pca"]:
        """How the map is learned from them."""
        return "pca" if self.labels is None else "within-class"

    @property
    def groups(self) -> Ints:
        """What should be near each other, (n,): views of a class or, without classes, of an image."""
        return self.images if self.labels is None else self.labels

    def at(self, rows: Ints) -> Examples:
        """Some of the views."""
        labels = None if self.labels is None else self.labels[rows]
        return Examples(self.embeddings[rows], self.images[rows], labels, self.source)


@dataclass(frozen=True)
class Learned:
    """The map, and two others, each learned without the classes of the other's parity; None with too few classes."""

    reduction: Reduction
    halves: tuple[Reduction, Reduction] | None
    shrinkage: float
    method: Literal["within-class", "pca"]
    source: str
    num_images: int
    num_classes: int | None

    def record(self, recommended: int | None = None) -> ReductionRecord:
        """What the manifest of a bundle says of it."""
        return ReductionRecord(
            dim=self.reduction.dim,
            lengths=lengths_up_to(self.reduction.dim),
            recommended=recommended,
            method=self.method,
            shrinkage=self.shrinkage,
            source=self.source,
            num_images=self.num_images,
            num_classes=self.num_classes,
        )


def learn(examples: Examples) -> Learned:
    """Learns the map, and its shrinkage from how well maps of each half of the classes serve the other half.

    Raises:
        ReductionError: fewer than two different images, or no class with two of them.
    """
    dim = min(LENGTHS[-1], _MAX_NUMBERS // examples.embeddings.shape[1])
    parity = examples.groups % 2
    halves = [
        (examples.at(np.flatnonzero(parity == side)), examples.at(np.flatnonzero(parity != side))) for side in (0, 1)
    ]
    can_choose = all(len(np.unique(half.groups)) > 1 and _repeats(half) for pair in halves for half in pair)
    found = [components(inside.embeddings) for inside, _ in halves] if can_choose else []
    shrinkage = _chosen(found, halves) if found else DEFAULT_SHRINKAGE
    whole = components(examples.embeddings)
    maps = [
        basis.reduction(_whitening(basis.rows, half, shrinkage, dim))
        for basis, half in zip([whole, *found], [examples, *(inside for inside, _ in halves)], strict=False)
    ]
    return Learned(
        reduction=maps[0],
        halves=(maps[1], maps[2]) if found else None,
        shrinkage=shrinkage,
        method=examples.method,
        source=examples.source,
        num_images=len(np.unique(examples.images)),
        num_classes=None if examples.labels is None else len(np.unique(examples.labels)),
    )


def _whitening(rows: Doubles, examples: Examples, shrinkage: float, dim: int) -> Doubles:
    if examples.labels is None:
        return whitening(rows, shrinkage, dim)
    return within_class(rows, examples.labels, shrinkage, dim)


def _chosen(found: Sequence[Components], halves: Sequence[tuple[Examples, Examples]]) -> float:
    """The shrinkage with the highest mAP@R on unseen classes, by the first view of each image; of equal ones the largest."""
    totals = dict.fromkeys(SHRINKAGES, 0.0)
    for basis, (inside, outside) in zip(found, halves, strict=True):
        queries = _first_views(outside)
        projected = basis.project(queries.embeddings)
        for shrinkage in SHRINKAGES:
            short = projected @ _whitening(basis.rows, inside, shrinkage, _CHOSEN_AT)
            lengths = np.linalg.norm(short, axis=1, keepdims=True)
            scores = retrieval_scores(short / np.maximum(lengths, np.finfo(np.float64).tiny), queries.groups)
            totals[shrinkage] += float(scores["map_at_r"].sum())
    best = max(totals.values())
    return max(shrinkage for shrinkage, total in totals.items() if total >= best - 1e-9)


def _first_views(examples: Examples) -> Examples:
    """One view of each image, unless that leaves every class with one image."""
    _, firsts = np.unique(examples.images, return_index=True)
    first = examples.at(firsts)
    return first if _repeats(first) else examples


def _repeats(examples: Examples) -> bool:
    """Whether a group has more than one view."""
    return len(np.unique(examples.groups)) < len(examples.groups)


def save_learned(learned: Learned, folder: Path) -> None:
    """Writes the map with both halves and how it was learned, whole or not at all."""
    maps = {"whole": learned.reduction, **dict(zip(_HALVES, learned.halves or (), strict=False))}
    tensors = {f"{name}.{part}": getattr(one, part) for name, one in maps.items() for part in ("matrix", "mean")}
    about = json.dumps({name: getattr(learned, name) for name in _ABOUT})
    replace_file(folder / SHORT, serialize(tensors, {"learned": about}))


def load_learned(folder: Path) -> Learned | None:
    """What `save_learned` wrote; None if it did not."""
    path = folder / SHORT
    if not path.exists():
        return None
    with safe_open(path, framework="np") as file:
        about: dict[str, Any] = json.loads(file.metadata()["learned"])
        names = set(file.keys())
        maps = {
            name: Reduction(file.get_tensor(f"{name}.matrix"), file.get_tensor(f"{name}.mean"))
            for name in ("whole", *_HALVES)
            if f"{name}.matrix" in names
        }
    halves = (maps[_HALVES[0]], maps[_HALVES[1]]) if _HALVES[0] in maps else None
    return Learned(reduction=maps["whole"], halves=halves, **about)
