"""SGD with a learning rate schedule, and the signs of divergence that stop it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, ReduceLROnPlateau, StepLR

from rankone.model.errors import RankoneError
from rankone.training.recipe import Phase, Recipe

MAX_RETURNS: Final = 3
"""How often phase 2 goes back to the best network before it ends with that."""

NUM_STEPS: Final = 20
"""Steps whose median loss has to be too high: a single batch says little, and a ruined network is right by chance."""

_TIMES: Final = 2.0
_SHARE_OF_CHANCE: Final = 0.5


class Diverged(RankoneError, ArithmeticError):
    """A loss or a gradient that is not finite, or a loss that stays far above that of the start.

    Args:
        where: phase, epoch and step, in words.
        reason: the fault, in a few words.
        advice: what to do where training cannot go back.
    """

    def __init__(self, where: str, reason: str, advice: str = "") -> None:
        super().__init__(f"{where}: {reason}. {advice}".rstrip())
        self.reason = reason


def highest_loss(start: float, num_classes: int) -> float:
    """The loss that training must not stay above: twice that of the start, and at least half of what guessing costs.

    A classifier that fits its training images by heart starts near 0, where twice the loss would mean nothing.

    Args:
        start: mean cross entropy when the phase begins.
        num_classes: guessing costs log(num_classes).
    """
    return max(_TIMES * start, _SHARE_OF_CHANCE * math.log(num_classes))


_FACTOR: Final = 0.1


class Optimization:
    """SGD with momentum, weight decay, clipping and a schedule, as the recipe says, on the parameters of one phase."""

    def __init__(self, parameters: Iterable[nn.Parameter], phase: Phase, recipe: Recipe) -> None:
        self.parameters = list(parameters)
        self.optimizer = SGD(
            self.parameters, lr=phase.learning_rate, momentum=recipe.momentum, weight_decay=phase.weight_decay
        )
        self.schedule = _schedule(self.optimizer, phase, recipe)
        self._longest = recipe.clip_norm or math.inf

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self, loss: float, where: str, images: Sequence[Path]) -> float:
        """Moves the parameters by the gradients that are there; returns the length of these, before it is clipped.

        Args:
            loss: that the gradients belong to.
            where: phase, epoch and step, in words.
            images: of the step.

        Raises:
            Diverged: the loss or the length is not finite; no parameter was moved.
        """
        length = float(clip_grad_norm_(self.parameters, self._longest))
        if not (math.isfinite(loss) and math.isfinite(length)):
            reason = f"the loss is {loss:.4g}, the length of the gradient {length:.4g}"
            raise Diverged(where, reason, _advice(images, self.learning_rate))
        self.optimizer.step()
        self.optimizer.zero_grad()
        return length

    def halve(self) -> None:
        """Halves the learning rate for good; forgets gradients and momentum, as the next step starts from other weights."""
        self.optimizer.zero_grad()
        self.optimizer.state.clear()
        for group in self.optimizer.param_groups:
            group["lr"] /= 2
        if not isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.base_lrs = [rate / 2 for rate in self.schedule.base_lrs]

    def end_epoch(self, error: float) -> None:
        """Moves the schedule on; `error` is what a plateau is seen in."""
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(error)
        else:
            with warnings.catch_warnings():  # torch does not see that a resumed epoch had taken its steps before
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
                self.schedule.step()

    def state(self) -> dict[str, Any]:
        """What `load` goes on from."""
        return {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from a `state`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])


def _schedule(optimizer: SGD, phase: Phase, recipe: Recipe) -> ReduceLROnPlateau | LRScheduler:
    if recipe.schedule == "step":
        return StepLR(optimizer, step_size=recipe.patience, gamma=_FACTOR)
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=max(1, phase.epochs))
    # `patience` epochs without a lower error, where torch counts the ones it tolerates before it acts
    return ReduceLROnPlateau(optimizer, factor=_FACTOR, patience=recipe.patience - 1, threshold=0.0)


def _advice(images: Sequence[Path], learning_rate: float) -> str:
    names = "\n  ".join(map(str, images))
    return (
        "No weight was changed, and the last checkpoint is as it was. Lower the learning rate "
        f"(now {learning_rate:g}) or clip_norm, and train into another directory. The images of this step:\n  {names}"
    )
