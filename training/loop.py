"""What both phases do alike: take a step, end an epoch, choose the best one, save, stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rankone.model.errors import Interrupted
from rankone.model.network import Network
from rankone.training.checkpoint import State
from rankone.training.data import Split
from rankone.training.embeddings import Work, represented
from rankone.training.encoder import Forward
from rankone.training.journal import Journal
from rankone.training.optimize import MAX_RETURNS, NUM_STEPS, Diverged, Optimization, highest_loss
from rankone.training.progress import say
from rankone.training.recipe import Phase
from rankone.training.run import Run
from rankone.training.selection import Steering
from rankone.training.state import Progress

Measured = tuple[float, float]
"""Error and loss, in evaluation mode."""


class Trainer:
    """A network in training with its images and its run on disk, from where the run's checkpoint is.

    Args:
        network: gets the checkpoint's weights, where there is one.
        steering: the images by their use.
        run: the directory.
        work: how images are gone through.
        save_every_s: seconds after which the checkpoint is renewed within an epoch.
        tell: gets what the user should know, a line each.
    """

    def __init__(
        self,
        network: Network,
        steering: Steering,
        run: Run,
        work: Work,
        save_every_s: float,
        tell: Callable[[str], object] = say,
    ) -> None:
        assert network.classifier is not None, "training needs classes"
        self.network, self.classifier = network, network.classifier
        self.steering, self.run, self.recipe, self.work = steering, run, run.recipe, work
        self.forward = Forward(network, work.world.device, run.recipe.precision, compile=run.recipe.compile)
        self.labels = torch.tensor(steering.fitted.labels)
        self.journal = Journal(None, Progress())
        self.average: nn.Module | None = None
        self.stopping = False
        self._tell = tell
        self._save_every_s, self._saved, self._epoch_began = save_every_s, time.monotonic(), time.monotonic()
        self._seen_before = 0
        self.load()

    def load(self) -> None:
        """Goes back to the checkpoint, or to the start where there is none."""
        state = self.run.load(self.network) or State(Progress(), {})
        self.progress, self.best = state.progress, dict(state.tensors.get("best", {}))
        self.averaged, self._optimizer = dict(state.tensors.get("average", {})), state.optimizer
        self.work.world.wait()  # nobody renews the checkpoint while another one reads it

    @contextmanager
    def optimization(self, module: nn.Module, phase: Phase) -> Iterator[Optimization]:
        """As the checkpoint left it; an interruption within the block saves where it is."""
        optimization = Optimization(module.parameters(), phase, self.recipe)
        if self._optimizer:
            optimization.load(self._optimizer)
        self._saved = self._epoch_began = time.monotonic()
        self._seen_before = self.progress.num_seen
        try:
            yield optimization
        except Interrupted:
            self.save(optimization)
            raise

    def step(self, optimization: Optimization, loss: float, num_wrong: int, images: Sequence[Path]) -> None:
        """Moves the parameters by the gradients of a step whose mean loss over `images` is `loss`.

        Raises:
            Diverged: it is not finite, or too high for too many steps.
        """
        rate, place = optimization.learning_rate, self.progress
        length = optimization.step(loss, self._where, images)
        self.journal.step(place, loss=loss, gradient=length, learning_rate=rate)
        self._check_loss(loss)
        place.count(loss, num_wrong, len(images))

    @property
    def _where(self) -> str:
        place = self.progress
        return f"phase {place.phase}, epoch {place.epoch + 1}, step {place.step + 1}"

    def _check_loss(self, loss: float) -> None:
        """Raises Diverged where the last steps of phase 2 were far worse than its start."""
        progress = self.progress
        if progress.start_loss is None:
            return
        progress.recent = [*progress.recent, loss][-NUM_STEPS:]
        highest = highest_loss(progress.start_loss, len(self.run.data.classes))
        if len(progress.recent) == NUM_STEPS and median(progress.recent) > highest:
            raise Diverged(
                self._where,
                f"the median loss of {NUM_STEPS} steps is {median(progress.recent):.3g}, and the loss was "
                f"{progress.start_loss:.3g} at the start",
            )

    def pause(self, optimization: Optimization, stop: bool) -> None:
        """Between two steps: renews the checkpoint if it is due, and stops if that was asked for.

        Raises:
            Interrupted: it was.
        """
        if time.monotonic() - self._saved >= self._save_every_s:
            self.save(optimization)
        self.check_stop(stop)

    def check_stop(self, stop: bool | None = None) -> None:
        """Raises Interrupted if a stop was asked for: of this process, or as `stop` says for all."""
        if bool(self.work.stop) if stop is None else stop:
            raise Interrupted(f"stopped; what is done is in {self.run.path}, and the same command goes on from there")

    def end_epoch(self, optimization: Optimization, measured: Measured, network: Network) -> None:
        """Notes the epoch, moves the schedule on, and keeps the weights of `network` if they are the best so far.

        Args:
            optimization: of the phase.
            measured: error and loss of `network` on the images that select.
            network: what the epoch left.

        Raises:
            Diverged: the loss is not finite.
        """
        if not math.isfinite(sum(measured)):
            raise Diverged(
                f"phase {self.progress.phase}, epoch {self.progress.epoch + 1}",
                f"the loss on the images that select the network is {measured[1]}",
                "The last checkpoint is as it was. Lower the learning rate "
                f"(now {optimization.learning_rate:g}) or clip_norm, and train into another directory",
            )
        seconds, num_images = time.monotonic() - self._epoch_began, self.progress.num_seen - self._seen_before
        held_out = self.steering.images is not None
        record = self.progress.end_epoch(measured if held_out else None, optimization.learning_rate)
        optimization.end_epoch(measured[0] if held_out else record.train_error)
        if self.progress.choose(measured, by_loss=not held_out):
            self.best = _copy(network, "classifier." if self.progress.phase == 1 else "")
        self.journal.epoch({**record.model_dump(), "seconds": seconds, "images_per_s": num_images / seconds})
        self._epoch_began, self._seen_before = time.monotonic(), 0

    def begin_phase2(self, measured: Measured) -> None:
        """Notes how good the network is that phase 2 starts with: nothing worse will be kept."""
        self.progress.start_loss = measured[1]
        if self.progress.best is None:
            self.progress.best, self.best = measured, _copy(self.network)

    def go_back(self, optimization: Optimization, diverged: Diverged) -> bool:
        """Puts the best weights so far into the network and halves the learning rate; False where that was done too often."""
        again = len(self.progress.returns) < MAX_RETURNS
        where = self._where
        optimization.halve()
        self.network.load_state_dict({**self.network.state_dict(), **self.best})
        self.averaged = {}
        record = self.progress.restart_epoch(diverged.reason, optimization.learning_rate if again else None)
        self.journal.went_back(self.progress)
        self._epoch_began, self._seen_before = time.monotonic(), 0
        if self.work.world.leads:
            then = f"continues at half the rate, {record.learning_rate:.3g}" if again else "ends there"
            self._tell(f"{where}: {diverged.reason}; training goes back to the best network so far and {then}")
        return again

    def end_phase(self) -> None:
        """Makes the chosen weights the network's, and opens the next phase."""
        self.network.load_state_dict({**self.network.state_dict(), **self.best})
        if self.best:
            self.best = _copy(self.network)
        if self.progress.phase == 1 and self.work.world.leads and self.recipe.phase2.epochs:
            self.run.save_phase1(self.network)
        self.progress.next_phase()
        self._optimizer, self.averaged, self.average = {}, {}, None
        self.save(None)

    def save(self, optimization: Optimization | None) -> None:
        """Renews the checkpoint; of several processes, the first one does."""
        self._saved = time.monotonic()
        if not self.work.world.leads:
            return
        tensors = {"network": self.network.state_dict(), "best": self.best}
        if self.average is not None:
            tensors["average"] = self.average.state_dict()
        self.journal.sync()
        states: dict[str, Any] = {} if optimization is None else optimization.state()
        self.run.save(State(self.progress, {name: found for name, found in tensors.items() if found}, states))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What is minimized."""
        return F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)

    @torch.no_grad()
    def measure(self, forward: Forward, split: Split, title: str) -> tuple[float, float]:
        """Error and loss of the network behind `forward` on the images of `split`."""
        world = self.work.world
        own = split.at(world.share(range(len(split))))
        labels, scores = torch.tensor(own.labels, device=world.device), []
        for rows in represented(forward, own, self.recipe.preprocessing, self.work, title):
            assert forward.network.classifier is not None
            scores.append(forward.network.classifier(rows))
        sums = counted(torch.cat(scores), labels) if scores else (0.0, 0.0)
        num_wrong, loss = world.sum(*sums)
        return num_wrong / len(split), loss / len(split)


@torch.no_grad()
def counted(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """How many are wrong, and the sum of the cross entropies."""
    return float((logits.argmax(1) != labels).sum()), float(F.cross_entropy(logits, labels, reduction="sum"))


def generator(*numbers: int) -> torch.Generator:
    """A generator for this combination of numbers: (0, 1) and (1, 0) draw differently."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % (1 << 63)
    return torch.Generator().manual_seed(seed)


def shuffled(count: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """All indices below `count`, in the order of this epoch, in groups of a batch."""
    order = torch.randperm(count, generator=generator(seed, epoch)).tolist()
    return [order[start : start + batch_size] for start in range(0, count, batch_size)]


def _copy(network: Network, prefix: str = "") -> dict[str, Tensor]:
    """The weights whose names begin with `prefix`, as they are now."""
    found = network.state_dict().items()
    return {name: value.detach().cpu().clone() for name, value in found if name.startswith(prefix)}
