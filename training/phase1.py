"""Phase 1: only the classifier, on embeddings that are computed once; by gradient descent, or solved until it converges."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from rankone.model.projection import LowRank
from rankone.training.axes import coordinates
from rankone.training.data import Split
from rankone.training.data.batches import in_order
from rankone.training.embeddings import Rows, loaded, stored_rows
from rankone.training.encoder import centre_bottleneck
from rankone.training.logistic import APART, MAX_ITERATIONS, LogisticProblem, fit
from rankone.training.loop import Loop, wrong_and_loss
from rankone.training.optimize import Diverged, Optimization
from rankone.training.progress import progress
from rankone.training.selection import hold_out
from rankone.training.state import Measured

_BLOCK: Final = 1024


def phase1(loop: Loop, folder: Path) -> None:
    """Embeds every image once into `folder`, and its mirror image if the recipe flips; fits the classifier to that."""
    if loop.state.position == (1, 0, 0):
        centre_bottleneck(loop.encoder, loop.images.fitted, loop.recipe.preprocessing, loop.resources)
        _start_at_principal_axes(loop)
    error, is_main = None, loop.resources.processes.is_main
    if loop.recipe.phase1.epochs:
        rows, held_out = _stored(loop, loop.images.fitted, folder, "embedding"), loop.images.held_out
        selecting = (rows, loop.labels)  # of the images that select the network
        if held_out is not None:
            kept = _stored(loop, held_out, folder, "embedding held-out images")
            selecting = (kept, torch.tensor(held_out.labels))
        if loop.recipe.flip:
            rows = rows + _stored(loop, loop.images.fitted, folder, "embedding mirror images", mirror=True)
        if is_main:
            (_solve if loop.recipe.phase1.solver == "lbfgs" else _fit)(loop, rows, selecting)
            loop.state.load_best(loop.network)
            error, _ = _measure(loop.classifier, *selecting)
    if is_main:
        loop.end_phase(error)
    loop.reload()


def _fit(loop: Loop, rows: Rows, selecting: tuple[Rows, Tensor]) -> None:
    phase = loop.recipe.phase1
    labels = loop.labels.repeat(len(rows) // len(loop.labels))
    with loop.optimization(loop.classifier, phase) as optimization:
        epochs = range(loop.state.epoch, phase.epochs)
        for epoch in progress(epochs, [len(rows)] * len(epochs), "phase 1: classifier"):
            groups = loop.order(phase, epoch, labels.tolist())
            for group in groups[loop.state.step :]:
                _step(loop, optimization, rows, labels, group)
            loop.end_epoch(optimization, _measure(loop.classifier, *selecting), loop.network)


def _solve(loop: Loop, rows: Rows, selecting: tuple[Rows, Tensor]) -> None:
    """Solves for the classifier until it converges; an interrupted phase starts again, from the embeddings on disk.

    Raises:
        Diverged: an embedding is not finite; the message names the image.
        Interrupted: a stop was requested.
    """
    device, images = loop.resources.processes.device, loop.images.fitted
    _check_finite(loop, rows)
    copies = len(rows) // len(images)
    labels = loop.labels.repeat(copies).to(device)
    held_out = None if loop.images.held_out is None else selecting
    found = coordinates(rows, held_out[0] if held_out else Rows([]), device)
    weights = 1 / labels.bincount()[labels].double() if loop.recipe.sampling == "balanced" else None
    problem = LogisticProblem(found.rows, labels, len(loop.run.data.classes), weights, loop.recipe.label_smoothing)
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
            loop.report_line(
                f"phase 1: L-BFGS stopped at its limit of {MAX_ITERATIONS} iterations with penalty {attempt.strength:g}; "
                f"its gradient is {attempt.gradient:.1e} of that at the start"
            )
    loop.end_fit(record, _measure(loop.classifier, *selecting))


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


def _step(loop: Loop, optimization: Optimization, rows: Rows, labels: Tensor, group: list[int]) -> None:
    device, paths = loop.resources.processes.device, loop.images.fitted.paths
    targets = labels[group].to(device)
    logits = loop.classifier(rows[group].to(device))
    loss = loop.loss(logits, targets)
    loss.backward()
    num_wrong = int((logits.argmax(1) != targets).sum())
    loop.step(optimization, float(loss.detach()), num_wrong, [paths[index % len(paths)] for index in group])
    loop.between_steps(optimization, bool(loop.resources.stop))


def _stored(loop: Loop, split: Split, folder: Path, title: str, *, mirror: bool = False) -> Rows:
    return stored_rows(loop.encoder, split, loop.recipe, loop.resources, folder, title, mirror=mirror)


@torch.no_grad()
def _measure(classifier: nn.Module, rows: Rows, labels: Tensor) -> Measured:
    """Error and loss of the classifier on rows that are on disk."""
    device = next(classifier.parameters()).device
    totals = torch.zeros(2)
    for block in in_order(len(rows), _BLOCK):
        totals += torch.tensor(wrong_and_loss(classifier(rows[block].to(device)), labels[block].to(device)))
    return float(totals[0]) / len(rows), float(totals[1]) / len(rows)


@torch.no_grad()
def _start_at_principal_axes(loop: Loop) -> None:
    """If a low-rank projection asks for it: from the mean matrix of the images that are fitted."""
    pooling, split = loop.network.pooling, loop.images.fitted
    if not (isinstance(pooling.projection, LowRank) and pooling.projection.pca):
        return
    loop.network.eval()
    processes = loop.resources.processes
    total = torch.zeros((), device=processes.device)
    for images in loaded(split, loop.recipe.preprocessing, loop.resources, "principal axes"):
        loop.check_stop(bool(loop.resources.stop))
        total = total + pooling.matrix(loop.encoder.features(images)).sum(dim=0)
    pooling.projection.start_at_principal_axes(total / len(split))
    processes.broadcast(pooling.projection.parameters())
