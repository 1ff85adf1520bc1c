"""What both phases share: take a step, end an epoch, keep the best network, roll back, save, stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rankone.model.errors import Interrupted
from rankone.model.network import Network
from rankone.model.training_record import FitRecord
from rankone.training.data import Split
from rankone.training.data.batches import augmentation, balanced, shuffled
from rankone.training.embeddings import embed
from rankone.training.encoder import Encoder
from rankone.training.journal import Journal
from rankone.training.optimize import MAX_ROLLBACKS, NUM_STEPS, Diverged, Optimization, check_losses
from rankone.training.processes import Processes, Resources
from rankone.training.recipe import Phase
from rankone.training.run import Run
from rankone.training.selection import TrainingImages
from rankone.training.state import Measured, TrainingState


class Budget:
    """The time that a training may take, over all its interruptions: `spent_s` before now; without `minutes`, no limit."""

    def __init__(self, minutes: float | None, spent_s: float, processes: Processes) -> None:
        self._limit_s = None if minutes is None else 60 * minutes
        self._before_s, self._processes, self._began = spent_s, processes, time.monotonic()

    @property
    def spent_s(self) -> float:
        """Seconds; 0 without a limit, which needs no count."""
        return 0.0 if self._limit_s is None else self._before_s + time.monotonic() - self._began

    @property
    def left_s(self) -> float:
        """Seconds by the clock of the main process, so that all processes decide alike; infinite without a limit."""
        if self._limit_s is None:
            return math.inf
        (left_s,) = self._processes.from_main(self._limit_s - self.spent_s)
        return left_s


class Loop:
    """Trains `encoder.network` from `state` on; every change of the training goes through its methods.

    The network has the weights of the checkpoint that `state` was loaded from, if there was one. The checkpoint is renewed
    after every epoch, and after `save_every_s` seconds; `report_line` is called with each message for the user.
    """

    def __init__(
        self,
        encoder: Encoder,
        state: TrainingState,
        images: TrainingImages,
        run: Run,
        resources: Resources,
        journal: Journal,
        *,
        save_every_s: float,
        report_line: Callable[[str], object],
    ) -> None:
        assert encoder.network.classifier is not None, "training needs classes"
        self.encoder, self.network, self.classifier = encoder, encoder.network, encoder.network.classifier
        self.state, self.images, self.run, self.recipe, self.resources = state, images, run, run.recipe, resources
        self.labels = torch.tensor(images.fitted.labels)
        self.budget = Budget(self.recipe.minutes, state.spent_s, resources.processes)
        self._journal, self._save_every_s, self._report_line = journal, save_every_s, report_line
        self._saved = self._epoch_began = time.monotonic()
        self._seen_before = 0

    def reload(self) -> None:
        """Continues from the checkpoint in every process, after the main one alone has worked."""
        self.resources.processes.barrier()
        self.state = self.run.load(self.network) or TrainingState()
        self.resources.processes.barrier()  # no process renews the checkpoint while another one reads it

    @contextmanager
    def optimization(self, module: nn.Module, phase: Phase, **options: Any) -> Iterator[Optimization]:
        """The optimization of `module` as the checkpoint left it; an interruption within the block is saved."""
        optimization = Optimization(module, phase, self.recipe, **options)
        if self.state.optimizer:
            optimization.load(self.state.optimizer, self.state.tensors.get("average"))
        self._saved = self._epoch_began = time.monotonic()
        self._seen_before = self.state.num_seen
        try:
            yield optimization
        except Interrupted:
            self.save(optimization)
            raise

    def order(self, phase: Phase, epoch: int, labels: Sequence[int]) -> list[list[int]]:
        """The indices of the images with these labels in the order of this epoch, in groups of a batch."""
        if self.recipe.sampling == "balanced":
            return balanced(labels, phase.batch_size, self.recipe.seed, epoch)
        return shuffled(len(labels), phase.batch_size, self.recipe.seed, epoch)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The training loss: cross entropy with the recipe's label smoothing."""
        return F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)

    def step(self, optimization: Optimization, loss: float, num_wrong: int, images: Sequence[Path]) -> None:
        """Moves the parameters by the gradients of a step whose mean loss over `images` is `loss`.

        Raises:
            Diverged: the loss or gradient is not finite, or the recent losses are too high; in the second case the weights have
                been moved.
        """
        rate, state = optimization.learning_rate, self.state
        where = f"{self._epoch_name}, step {state.step + 1}"
        gradient = optimization.step(loss, where, images)
        self._journal.step(state, loss=loss, gradient=gradient, learning_rate=rate)
        if state.start_loss is not None:  # in phase 2
            state.recent_losses = [*state.recent_losses, loss][-NUM_STEPS:]
            check_losses(state.recent_losses, state.start_loss, len(self.run.data.classes), where)
        state.add_step(loss, num_wrong, len(images))

    def between_steps(self, optimization: Optimization, stop: bool) -> None:
        """Renews the checkpoint if it is due; raises Interrupted if the user asked to stop."""
        self.check_stop(stop)  # `optimization` saves what an interruption leaves
        if time.monotonic() - self._saved >= self._save_every_s:
            self.save(optimization)

    def check_stop(self, stop: bool) -> None:
        """Raises Interrupted if the user asked to stop."""
        if stop:
            raise Interrupted(f"stopped; the progress is saved in {self.run.path}, and the same command resumes it")

    def end_epoch(self, optimization: Optimization, measured: Measured, network: Network) -> None:
        """Records the epoch, moves the schedule on, and keeps the weights of `network` if they are the best so far.

        `measured` is the error and loss of `network` on the images that select; raises Diverged if the loss is not finite.
        """
        if not math.isfinite(sum(measured)):
            raise Diverged(
                self._epoch_name,
                f"the loss on the images that select the network is {measured[1]}",
                "The last checkpoint is as it was. Lower the learning rate "
                f"(now {optimization.learning_rate:g}) or clip_norm, and train into another directory",
            )
        seconds, num_images = time.monotonic() - self._epoch_began, self.state.num_seen - self._seen_before
        held_out = measured if self.images.held_out is not None else None
        if self.state.phase == 2 and self.recipe.minutes is not None:
            whole_s = seconds * self.state.num_seen / max(1, num_images)  # a resumed epoch took less than a whole one
            self._fit_to_budget(optimization, whole_s)
        record = self.state.end_epoch(held_out, optimization.learning_rate)
        optimization.end_epoch(record.train_error if held_out is None else held_out[0])
        self.state.choose(measured, network, by_loss=held_out is None)
        self._journal.epoch({**record.model_dump(), "seconds": seconds, "images_per_s": num_images / seconds})
        self._epoch_began, self._seen_before = time.monotonic(), 0

    def end_fit(self, fit: FitRecord, measured: Measured) -> None:
        """Records a phase 1 that was solved until it converged, and keeps its weights.

        `measured` is the error and loss of the network on the images that select.
        """
        held_out = measured if self.images.held_out is not None else None
        for number, attempt in enumerate((*fit.attempts, fit.final)):
            self._journal.attempt(self.state, is_final=number == len(fit.attempts), **attempt.model_dump())
        record = self.state.end_epoch(held_out, None, fit)
        self.state.choose(measured, self.network, by_loss=held_out is None)
        self._journal.epoch({**record.model_dump(), "seconds": time.monotonic() - self._epoch_began})

    def report_line(self, text: str) -> None:
        """Tells the user, from the main process."""
        if self.resources.processes.is_main:
            self._report_line(text)

    def end_without_time(self) -> bool:
        """Whether the time is spent, which the user is told."""
        if self.budget.left_s > 0:
            return False
        self.report_line(f"the {self.recipe.minutes:g} minutes are spent: training ends in the {self._epoch_name}")
        return True

    def _fit_to_budget(self, optimization: Optimization, epoch_s: float) -> None:
        """Ends phase 2 and its schedule with the last epoch for which there is time, if each takes `epoch_s`."""
        done, most = self.state.epoch + 1, self.recipe.phase2.epochs
        num_epochs = min(most, done + int(self.budget.left_s / epoch_s))
        (num_epochs,) = map(int, self.resources.processes.from_main(num_epochs))
        if num_epochs != self.state.num_epochs:
            self.report_line(
                f"phase 2: {num_epochs} epochs of {epoch_s:.0f} s fit into {self.recipe.minutes:g} minutes"
            )
        self.state.num_epochs = num_epochs
        optimization.end_after(num_epochs)

    def roll_back(self, optimization: Optimization, diverged: Diverged) -> bool:
        """Loads the best weights so far and halves the learning rate; False if that was done too often."""
        again = len(self.state.rollbacks) < MAX_ROLLBACKS
        where = f"{self._epoch_name}, step {self.state.step + 1}"
        self.state.load_best(self.network)
        optimization.restart()
        record = self.state.roll_back(diverged.reason, optimization.learning_rate if again else None)
        self._journal.roll_back(self.state)
        self._epoch_began, self._seen_before = time.monotonic(), 0
        then = f"continues at half the rate, {record.learning_rate:.3g}" if again else "ends there"
        self.report_line(f"{where}: {diverged.reason}; training is rolled back to the best network so far and {then}")
        return again

    def end_phase(self, phase1_error: float | None = None) -> None:
        """Makes the best weights the network's, and begins the next phase."""
        ended = self.state.phase
        self.state.end_phase(self.network, phase1_error)
        if ended == 1 and self.resources.processes.is_main and self.recipe.phase2.epochs:
            self.run.save_phase1(self.network)
        self.save(None)

    def save(self, optimization: Optimization | None) -> None:
        """Renews the checkpoint, in the main process."""
        self._saved = time.monotonic()
        if self.resources.processes.is_main:
            self.state.spent_s = self.budget.spent_s
            self.state.capture(self.network, optimization)
            self._journal.sync()
            self.run.save(self.state)

    @torch.no_grad()
    def measure(self, encoder: Encoder, split: Split, title: str, *, as_trained: bool = False) -> Measured:
        """Error and loss of the encoder's network on the images of `split`.

        With `as_trained`, the images are varied and the loss is smoothed as in a step of phase 2.
        """
        augment = augmentation(self.recipe.augment, self.recipe.seed, epoch=0) if as_trained else None
        smoothing = self.recipe.label_smoothing if as_trained else 0.0
        processes, classifier = self.resources.processes, encoder.network.classifier
        assert classifier is not None
        own = split.at(processes.shard(range(len(split))))
        labels = torch.tensor(own.labels, device=processes.device)
        rows = embed(encoder, own, self.recipe.preprocessing, self.resources, title, augment=augment)
        logits = [classifier(batch) for batch in rows]
        num_wrong, loss = processes.sum(*wrong_and_loss(torch.cat(logits), labels, smoothing) if logits else (0.0, 0.0))
        return num_wrong / len(split), loss / len(split)

    @property
    def _epoch_name(self) -> str:
        return f"phase {self.state.phase}, epoch {self.state.epoch + 1}"


@torch.no_grad()
def wrong_and_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> tuple[float, float]:
    """The number of wrong predictions, and the sum of the cross entropies with labels smoothed as in `Loop.loss`."""
    loss = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
    return float((logits.argmax(1) != labels).sum()), float(loss)
