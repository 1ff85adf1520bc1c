"""Phase 1: only the classifier, on embeddings that are computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from rankone.model.projection import LowRank
from rankone.training.data import Split
from rankone.training.data.images import batches, in_order
from rankone.training.embeddings import BATCH_SIZE, Rows, stored
from rankone.training.loop import Trainer, counted, shuffled
from rankone.training.optimize import Optimization
from rankone.training.progress import watched

_BLOCK: Final = 1024


def phase1(trainer: Trainer, folder: Path) -> None:
    """Embeds every image once into `folder`, and its mirror image where the recipe flips; fits the classifier to that."""
    if trainer.progress.position == (1, 0, 0):
        _start_at_principal_axes(trainer)
    if trainer.recipe.phase1.epochs:
        rows = _stored(trainer, trainer.steering.fitted, folder, "embedding")
        selecting = _selecting(trainer, rows, folder)
        if trainer.recipe.flip:
            rows = rows + _stored(trainer, trainer.steering.fitted, folder, "embedding mirror images", mirror=True)
        if trainer.work.world.leads:
            _fit(trainer, rows, selecting)
    if trainer.work.world.leads:
        trainer.end_phase()
    trainer.work.world.wait()
    trainer.load()


def _fit(trainer: Trainer, rows: Rows, selecting: tuple[Rows, Tensor]) -> None:
    phase = trainer.recipe.phase1
    labels = trainer.labels.repeat(len(rows) // len(trainer.labels))
    with trainer.optimization(trainer.classifier, phase) as optimization:
        epochs = range(trainer.progress.epoch, phase.epochs)
        for epoch in watched(epochs, [len(rows)] * len(epochs), "phase 1: classifier"):
            groups = shuffled(len(rows), phase.batch_size, trainer.recipe.seed, epoch)
            for group in groups[trainer.progress.step :]:
                _step(trainer, optimization, rows, labels, group)
            trainer.end_epoch(optimization, _measure(trainer.classifier, *selecting), trainer.network)
    trainer.network.load_state_dict({**trainer.network.state_dict(), **trainer.best})
    trainer.progress.handed_over = _measure(trainer.classifier, *selecting)[0]


def _step(trainer: Trainer, optimization: Optimization, rows: Rows, labels: Tensor, group: list[int]) -> None:
    device, paths = trainer.work.world.device, trainer.steering.fitted.paths
    wanted = labels[group].to(device)
    logits = trainer.classifier(rows[group].to(device))
    loss = trainer.loss(logits, wanted)
    loss.backward()
    num_wrong = int((logits.argmax(1) != wanted).sum())
    trainer.step(optimization, float(loss.detach()), num_wrong, [paths[index % len(paths)] for index in group])
    trainer.pause(optimization, bool(trainer.work.stop))


def _stored(trainer: Trainer, split: Split, folder: Path, title: str, *, mirror: bool = False) -> Rows:
    return stored(trainer.forward, split, trainer.recipe, trainer.work, folder, title, mirror=mirror)


def _selecting(trainer: Trainer, rows: Rows, folder: Path) -> tuple[Rows, Tensor]:
    """Rows and labels of the images that select the network; `rows` are those of the training images."""
    held_out = trainer.steering.images
    if held_out is None:
        return rows, trainer.labels
    return _stored(trainer, held_out, folder, "embedding held-out images"), torch.tensor(held_out.labels)


@torch.no_grad()
def _measure(classifier: nn.Module, rows: Rows, labels: Tensor) -> tuple[float, float]:
    """Error and loss of the classifier on rows that are on disk."""
    device = next(classifier.parameters()).device
    totals = torch.zeros(2)
    for block in in_order(len(rows), _BLOCK):
        totals += torch.tensor(counted(classifier(rows[block].to(device)), labels[block].to(device)))
    return float(totals[0]) / len(rows), float(totals[1]) / len(rows)


@torch.no_grad()
def _start_at_principal_axes(trainer: Trainer) -> None:
    """Where a low-rank projection asks for it: from the mean matrix of the images that are fitted."""
    pooling, split = trainer.network.pooling, trainer.steering.fitted
    if not (isinstance(pooling.projection, LowRank) and pooling.projection.pca):
        return
    trainer.network.eval()
    device = trainer.work.world.device
    total, groups = torch.zeros((), device=device), in_order(len(split), BATCH_SIZE)
    loaded = batches(split, trainer.recipe.preprocessing, groups, workers=trainer.work.workers)
    shown = trainer.work.world.leads
    for images in watched(loaded, [len(group) for group in groups], "principal axes", shown=shown):
        trainer.check_stop()
        total = total + pooling.matrix(trainer.forward.features(images)).sum(dim=0)
    pooling.projection.start_at_principal_axes(total / len(split))
    trainer.work.world.agree(pooling.projection.parameters())
