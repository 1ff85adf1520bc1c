"""One pooling measured on the local features of a backbone: linear classifier, retrieval in full and short, time and bytes.

Everything but the time depends on the inner products of the embeddings alone. So they are written to disk, replaced by shorter
rows with the same inner products, and removed: 262,144 numbers an image cost no more memory than 512.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from rankone.model.network import Network
from rankone.model.reduction import Floats, Ints, Reduction, ReductionError, shorten
from rankone.model.training_record import FitRecord
from rankone.training.axes import coordinates, same_products
from rankone.training.compare.features import Features, Images, milliseconds
from rankone.training.embeddings import BATCH_SIZE, Rows, mapped, write_once
from rankone.training.logistic import APART, LogisticProblem, fit
from rankone.training.metrics import interval, resampled_means, retrieval_scores
from rankone.training.processes import Resources
from rankone.training.progress import progress
from rankone.training.recipe import Recipe
from rankone.training.selection import hold_out
from rankone.training.short import Examples, Learned, learn
from rankone.training.short.examples import MAX_VIEWS
from rankone.training.short.figures import BYTES

SHORT: Final = 128
"""Numbers of the short embeddings that are compared; fewer where there are too few images to learn so many."""


class Figure(BaseModel):
    """A mean over the test images in [0, 1], with its 95 % interval and the outcome of every image, `1` for right."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean: float
    low: float
    high: float
    outcomes: str

    @classmethod
    def of(cls, outcomes: Floats) -> Figure:
        """From outcomes (n,), 0 or 1."""
        low, high = interval(resampled_means(outcomes[:, None].astype(np.float64)))
        bits = "".join("1" if one else "0" for one in outcomes)
        return cls(mean=float(outcomes.mean()), low=low, high=high, outcomes=bits)


class Scores(BaseModel):
    """What the embeddings of a pooling are worth."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    accuracy: Figure
    """Of a linear classifier on the embeddings of the training images, solved until it converged."""
    full: Figure
    """Recall@1 of whole embeddings."""
    short: Figure | None
    """Recall@1 of short ones, by a map learned from other classes; None if there are too few images to learn one."""
    short_dim: int | None
    is_disjoint: bool
    """Whether recall was measured within each half of the classes, by the map of the other; with few classes on all."""
    fit: FitRecord


class Row(Scores):
    """A backbone with a pooling, measured."""

    backbone: str
    weights: str
    pooling: str
    exportable: bool
    dim: int
    backbone_ms: float
    """Of one image alone."""
    pooling_ms: float
    """Of one image in a batch of 16."""

    @property
    def title(self) -> str:
        """Backbone and pooling."""
        return f"{self.backbone}, {self.pooling}"

    @property
    def bytes(self) -> int:
        """Of a whole embedding in an index."""
        return BYTES * self.dim

    @property
    def short_bytes(self) -> int | None:
        """Of a short embedding in an index."""
        return None if self.short_dim is None else BYTES * self.short_dim

    @property
    def ms(self) -> float:
        """Of an image, pixels to embedding."""
        return self.backbone_ms + self.pooling_ms


@torch.no_grad()
def measure(recipe: Recipe, network: Network, found: Features, images: Images, work: Path, resources: Resources) -> Row:
    """Measures the recipe's pooling on the features of the network's backbone; `work` is a folder for a temporary file.

    Raises:
        Interrupted: a stop was requested.
    """
    pooling = recipe.pooling.composition.build(network.backbone.channels)
    whole = Network(network.backbone, pooling, None).to(found.device).eval()
    scores = scores_of(whole, found, images, work / f"{recipe.pooling.name}.f32", recipe.seed, resources)
    local = next(found.starting_at(0))
    return Row(
        backbone=recipe.backbone,
        weights=recipe.weights,
        pooling=recipe.pooling.name,
        exportable=not recipe.pooling.composition.needs_eigendecomposition,
        dim=pooling.out_dim,
        backbone_ms=found.ms,
        pooling_ms=milliseconds(lambda: whole.represent_features(local)) / len(local),
        **dict(scores),
    )


@torch.no_grad()
def scores_of(network: Network, found: Features, images: Images, file: Path, seed: int, resources: Resources) -> Scores:
    """Measures the pooling of `network` on the features of its backbone. `file` is written for a while.

    Raises:
        Interrupted: a stop was requested.
    """
    check = partial(resources.check_stop, "stopped; finished rows are kept, and the same command resumes")
    rows = _short_rows(network, found, file, check)
    labels = torch.tensor(images.all_images.labels)
    accuracy, record = _classifier(rows, labels, images, seed, check)
    train, _, test = images.parts
    embedded = rows / rows.norm(dim=1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
    vectors = embedded.cpu().numpy().astype(np.float32)
    learned = _learned(vectors[train], labels[train].numpy())
    full, short, length, is_disjoint = _recall(vectors[test], labels[test].numpy(), learned)
    return Scores(accuracy=accuracy, full=full, short=short, short_dim=length, is_disjoint=is_disjoint, fit=record)


def _short_rows(network: Network, found: Features, path: Path, check: Callable[[], None]) -> Tensor:
    """What a classifier would read of all images, as rows (n, at most n) with the same inner products, float64."""
    dim, count = network.pooling.out_dim, len(found.rows)

    def rows_from(start: int) -> Iterator[Tensor]:
        counts = [min(BATCH_SIZE, count - first) for first in range(start, count, BATCH_SIZE)]
        for local in progress(found.starting_at(start), counts, path.stem, done=start):
            check()
            yield network.represent_features(local)

    path.with_suffix(".partial").unlink(missing_ok=True)
    try:
        write_once(path, 4 * dim * count, 4 * dim * BATCH_SIZE, rows_from)
        return same_products(Rows(list(mapped(path, dim))), found.device)
    finally:
        for file in (path, path.with_suffix(".partial")):
            file.unlink(missing_ok=True)


@torch.enable_grad()
def _classifier(
    rows: Tensor, labels: Tensor, images: Images, seed: int, check: Callable[[], None]
) -> tuple[Figure, FitRecord]:
    """Accuracy on the test images of the converged classifier."""
    train, validation, test = images.parts
    labels, numbers = labels.to(rows.device), rows.cpu().numpy()
    found = coordinates(Rows(list(numbers[train])), Rows(list(numbers[validation.start :])), rows.device)
    problem = LogisticProblem(found.rows, labels[train], len(images.data.classes))
    count = validation.stop - validation.start
    choosing = (found.others[:count], labels[validation]) if count else None
    _, apart = hold_out(images.data.train, APART, seed)
    solution, record = fit(problem, choosing, apart, check)
    right = solution.logits(found.others[count:]).argmax(1) == labels[test]
    return Figure.of(right.float().cpu().numpy()), record


def _learned(embeddings: Floats, labels: Ints) -> Learned | None:
    """The map to short embeddings, from the training images; None if nothing can be learned."""
    chosen = np.linspace(0, len(labels) - 1, min(len(labels), MAX_VIEWS)).round().astype(int)
    try:
        return learn(Examples(embeddings[chosen], chosen, labels[chosen], "training images"))
    except ReductionError:
        return None


def _recall(
    embeddings: Floats, labels: Ints, learned: Learned | None
) -> tuple[Figure, Figure | None, int | None, bool]:
    """Recall@1 in full and short of the test images, the short length, and whether the classes are disjoint."""
    halves = None if learned is None else learned.halves
    places: list[Ints] = [np.flatnonzero(labels % 2 != side) for side in (0, 1)]
    is_disjoint = halves is not None and all(len(place) for place in places)
    if is_disjoint and halves is not None:
        maps: tuple[Reduction, ...] = halves
    else:
        places, maps = [np.arange(len(labels))], () if learned is None else (learned.reduction,)
    length = min((SHORT, *(one.dim for one in maps))) if maps else None
    full, short = np.empty((2, len(labels)), np.float32)
    for number, place in enumerate(places):
        full[place] = retrieval_scores(embeddings[place], labels[place])["recall_at_1"]
        if length is not None:
            cut = shorten(maps[number](embeddings[place]), length)
            short[place] = retrieval_scores(cut, labels[place])["recall_at_1"]
    return Figure.of(full), None if length is None else Figure.of(short), length, is_disjoint
