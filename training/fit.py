"""The two phases: first the classifier alone, on embeddings computed once; then all layers, end to end."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau

from model.errors import Interrupted
from model.network import Network
from model.projection import LowRank
from training.datasets import Split
from training.embed import BATCH_SIZE, represent
from training.images import batches, in_order, mirrored
from training.interrupt import StopRequest
from training.recipe import Phase
from training.run import Progress, Run

KEPT = "embeddings"
"""Folder of the run for the embeddings of phase 1, each computed once even if the run is killed; gone when it is over."""


def fit(
    network: Network, split: Split, run: Run, *, stop: StopRequest, device: str = "cpu", workers: int = 0
) -> Progress:
    """Trains `network` by the run's recipe on `split`, from where the run's checkpoint is to the end of both phases.

    The same recipe gives the same network whether or not it was interrupted on the way.

    Raises:
        Interrupted: `stop` was requested; the checkpoint holds everything up to the last whole step.
        DataError: a file that cannot be read as an image.
    """
    fitting = _Fitting(network, split, run, stop, device, workers)
    if fitting.progress.phase == 1:
        fitting.phase1()
    if fitting.progress.phase == 2:
        fitting.phase2()
    return fitting.progress


def hold_out(split: Split, part: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices to fit on and indices held out: `part` of every class, at least one image of it but never all."""
    generator = torch.Generator().manual_seed(seed)
    held_out: set[int] = set()
    for label in sorted(set(split.labels)):
        members = [index for index, other in enumerate(split.labels) if other == label]
        count = min(max(1, round(part * len(members))), len(members) - 1) if part else 0
        held_out |= {members[i] for i in torch.randperm(len(members), generator=generator)[:count].tolist()}
    return [i for i in range(len(split)) if i not in held_out], sorted(held_out)


class _Fitting:
    def __init__(self, network: Network, split: Split, run: Run, stop: StopRequest, device: str, workers: int) -> None:
        assert network.classifier is not None, "training needs classes"
        self.progress, self.states = run.load(network)
        self.network, self.classifier = network.to(device), network.classifier
        self.split, self.run, self.recipe = split, run, run.recipe
        self.stop, self.device, self.workers = stop, device, workers
        self.labels = torch.tensor(split.labels)
        self.fitted, self.held_out = hold_out(split, run.recipe.validation, run.recipe.seed)

    def phase1(self) -> None:
        """Embeds every image once, and its mirror image where the recipe flips; fits the classifier to that."""
        phase = self.recipe.phase1
        with self._optimization(self.classifier, phase) as (optimizer, schedule):
            if self.progress.epoch == 0:
                self._start_at_principal_axes()
            mirrors = (False, True) if self.recipe.flip else (False,)
            embeddings, labels = self._embed(self.fitted, mirrors, kept=self.run.path / KEPT / "fitted")
            validation = self._embed(self.held_out, kept=self.run.path / KEPT / "held-out")
            remaining = range(self.progress.epoch, phase.epochs)
            for epoch in track(remaining, description="phase 1: classifier", disable=not remaining):
                for group in _shuffled(len(labels), phase.batch_size, self.recipe.seed, epoch):
                    self._step(self.classifier(embeddings[group]), labels[group], optimizer)
                self._end_epoch(_error(self.classifier, *validation), optimizer, schedule)
                self._check_stop()
        self._end_phase()
        shutil.rmtree(self.run.path / KEPT, ignore_errors=True)

    def phase2(self) -> None:
        """Trains all layers end to end; the checkpoint is renewed after every epoch."""
        phase = self.recipe.phase2
        with self._optimization(self.network, phase) as (optimizer, schedule):
            while self.progress.epoch < phase.epochs:
                for images, labels in self._batches(phase):
                    self._step(self.network(images)[1], labels, optimizer)
                    self.progress.step += 1
                    self._check_stop()
                self._end_epoch(_error(self.classifier, *self._embed(self.held_out)), optimizer, schedule)
                self._save(optimizer, schedule)
        self._end_phase()

    def _embed(
        self, indices: Sequence[int], mirrors: Iterable[bool] = (False,), kept: Path | None = None
    ) -> tuple[Tensor, Tensor]:
        rounds = [
            represent(
                self.network,
                self.split.at(indices),
                self.recipe.preprocessing,
                mirror=mirror,
                device=self.device,
                workers=self.workers,
                stop=self.stop,
                kept=kept and kept / ("mirrored" if mirror else "as-they-are"),
                description="embedding mirror images" if mirror else "embedding",
            )
            for mirror in mirrors
        ]
        return torch.cat(rounds), self.labels[list(indices)].repeat(len(rounds)).to(self.device)

    @torch.no_grad()
    def _start_at_principal_axes(self) -> None:
        """Where a low-rank projection asks for it: from the mean matrix of the images that are fitted."""
        pooling = self.network.pooling
        if not (isinstance(pooling.projection, LowRank) and pooling.projection.pca):
            return
        self.network.eval()
        total = torch.zeros((), device=self.device)
        split, groups = self.split.at(self.fitted), in_order(len(self.fitted), BATCH_SIZE)
        loaded = batches(split, self.recipe.preprocessing, groups, workers=self.workers)
        for images in track(loaded, description="principal axes", total=len(groups)):
            self._check_stop()
            total = total + pooling.matrix(self.network.backbone(images.to(self.device))).sum(dim=0)
        pooling.projection.start_at_principal_axes(total / len(split))

    def _batches(self, phase: Phase) -> Iterable[tuple[Tensor, Tensor]]:
        """What is left of the epoch in work. Order, mirroring and v_0 depend on seed, epoch and step alone."""
        progress, seed = self.progress, self.recipe.seed
        order = _shuffled(len(self.fitted), phase.batch_size, seed, progress.epoch)
        groups = [[self.fitted[i] for i in group] for group in order]
        mirror = torch.rand(len(self.split), generator=_generator(seed, progress.epoch)) < (
            0.5 if self.recipe.flip else 0
        )
        loaded = batches(self.split, self.recipe.preprocessing, groups[progress.step :], workers=self.workers)
        title = f"phase 2: all layers, epoch {progress.epoch + 1} of {phase.epochs}"
        for stored in track(loaded, description=title, total=len(groups), completed=progress.step):
            group = groups[progress.step]
            images = torch.where(mirror[group].view(-1, 1, 1, 1), mirrored(stored), stored)
            torch.manual_seed(_generator(seed, progress.epoch, progress.step).initial_seed())
            self.network.train()
            yield images.to(self.device), self.labels[group].to(self.device)

    def _step(self, logits: Tensor, labels: Tensor, optimizer: SGD) -> None:
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        self.progress.count(float(loss.detach()), int((logits.argmax(1) != labels).sum()), len(labels))

    def _end_epoch(self, validation_error: float | None, optimizer: SGD, schedule: ReduceLROnPlateau) -> None:
        record = self.progress.end_epoch(validation_error, float(optimizer.param_groups[0]["lr"]))
        schedule.step(record.train_error if validation_error is None else validation_error)

    def _end_phase(self) -> None:
        self.progress.next_phase()
        self.states = {}
        self.run.save(self.network, self.progress)

    @contextmanager
    def _optimization(self, module: nn.Module, phase: Phase) -> Iterator[tuple[SGD, ReduceLROnPlateau]]:
        """Optimizer and schedule as the checkpoint left them; an interruption within the block saves where they are."""
        optimizer = SGD(
            module.parameters(), lr=phase.learning_rate, momentum=phase.momentum, weight_decay=phase.weight_decay
        )
        # `patience` epochs without a lower error, where torch counts the ones it tolerates before it acts
        schedule = ReduceLROnPlateau(optimizer, factor=0.1, patience=phase.patience - 1, threshold=0.0)
        if self.states:
            optimizer.load_state_dict(self.states["optimizer"])
            schedule.load_state_dict(self.states["schedule"])
        try:
            yield optimizer, schedule
        except Interrupted:
            self._save(optimizer, schedule)
            raise

    def _save(self, optimizer: SGD, schedule: ReduceLROnPlateau) -> None:
        states: dict[str, Any] = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        self.run.save(self.network, self.progress, **states)

    def _check_stop(self) -> None:
        if self.stop:
            raise Interrupted(f"stopped; the checkpoint is in {self.run.path}, and the same command goes on from there")


def _generator(*numbers: int) -> torch.Generator:
    """A generator for this combination of numbers: (0, 1) and (1, 0) draw differently."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % (1 << 63)
    return torch.Generator().manual_seed(seed)


def _shuffled(count: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    order = torch.randperm(count, generator=_generator(seed, epoch)).tolist()
    return [order[start : start + batch_size] for start in range(0, count, batch_size)]


@torch.no_grad()
def _error(classifier: nn.Module, embeddings: Tensor, labels: Tensor) -> float | None:
    """The part of the embeddings that are classified wrong, or None where there are none."""
    if not len(labels):
        return None
    return float((classifier(embeddings).argmax(1) != labels).float().mean())
