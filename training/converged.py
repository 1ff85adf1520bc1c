"""Phase 1 without gradient descent: the linear classifier solved by L-BFGS, from the embeddings on disk to its weights."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from rankone.model.training_record import FitRecord, SolverRecord
from rankone.training.axes import coordinates
from rankone.training.data.batches import in_order
from rankone.training.embeddings import Rows
from rankone.training.logistic import MAX_ITERATIONS, Problem, fit
from rankone.training.loop import Loop
from rankone.training.optimize import Diverged
from rankone.training.selection import hold_out

APART: Final = 0.2
"""Share of every class that chooses the penalty where no images are held out."""
_BLOCK: Final = 1024


def solved(loop: Loop, rows: Rows, held_out: tuple[Rows, Tensor] | None) -> FitRecord:
    """Fits the classifier of the loop to `rows`: the embeddings of the training images, once or with their mirror images.

    Raises:
        Diverged: an embedding is not finite; the message names the image.
        Interrupted: a stop was requested.
    """
    device, images = loop.resources.processes.device, loop.images.fitted
    _check_finite(loop, rows)
    copies = len(rows) // len(images)
    labels = loop.labels.repeat(copies).to(device)
    others = held_out[0] if held_out else Rows([])
    found = coordinates(rows, others, device)
    weights = _equal_classes(labels) if loop.recipe.sampling == "balanced" else None
    problem = Problem(found.rows, labels, len(loop.run.data.classes), weights, loop.recipe.label_smoothing)
    choosing = (found.others, held_out[1].to(device)) if held_out else None
    _, apart = hold_out(images, APART, loop.recipe.seed)
    both = [place + copy * len(images) for copy in range(copies) for place in apart]  # never one of a mirrored pair
    solution, record = fit(problem, choosing, both, lambda: loop.check_stop(bool(loop.resources.stop)))
    assert isinstance(loop.classifier, nn.Linear)
    with torch.no_grad():
        weight, bias = found.weights(solution.weight, solution.bias)
        loop.classifier.weight.copy_(weight)
        loop.classifier.bias.copy_(bias)
    for attempt in {one.strength: one for one in (*record.attempts, record.final)}.values():
        if not attempt.converged:
            loop.report_line(_not_converged(attempt))
    return record


def _not_converged(record: SolverRecord) -> str:
    return (
        f"phase 1: L-BFGS stopped at its limit of {MAX_ITERATIONS} iterations with penalty {record.strength:g}; its gradient "
        f"is {record.gradient:.1e} of that at the start"
    )


def _equal_classes(labels: Tensor) -> Tensor:
    """Weights by which every class counts as much as any other, as balanced sampling draws them."""
    return 1 / labels.bincount()[labels].double()


def _check_finite(loop: Loop, rows: Rows) -> None:
    paths = loop.images.fitted.paths
    for block in in_order(len(rows), _BLOCK):
        finite = np.isfinite(rows[block].numpy()).all(axis=1)
        if not finite.all():
            image = paths[block[int(finite.argmin())] % len(paths)]
            raise Diverged(
                "phase 1",
                f"the embedding of {image} is not finite",
                "Look at the image and at the weights of the backbone",
            )
