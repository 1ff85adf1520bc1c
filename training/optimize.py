"""One phase of gradient descent: steps, learning rate schedule, moving average of the weights, and the signs of divergence."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any, Final

from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, ReduceLROnPlateau, StepLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rankone.model.errors import RankoneError
from rankone.training.parameters import groups
from rankone.training.recipe import Phase, Recipe

MAX_ROLLBACKS: Final = 3
"""How often phase 2 is rolled back to the best network before it ends with that."""

NUM_STEPS: Final = 20
"""Steps whose median loss has to be too high: a single batch says little, and a ruined network is right by chance."""

_MAX_RATIO: Final = 2.0
_SHARE_OF_CHANCE: Final = 0.5
_FACTOR: Final = 0.1
_BETA2: Final = 0.999


class Diverged(RankoneError, ArithmeticError):
    """A loss or a gradient that is not finite, or a loss that stays far above the loss at the start.

    The message names the phase, epoch and step, and advises what to do if training cannot be rolled back.
    """

    def __init__(self, where: str, reason: str, advice: str = "") -> None:
        super().__init__(f"{where}: {reason}. {advice}".rstrip())
        self.reason = reason


def highest_loss(start: float, num_classes: int) -> float:
    """The loss above which training counts as diverged: twice the loss at the start, and at least half the loss of guessing.

    A classifier that knows its training images by heart starts near 0, where twice the loss would mean nothing.
    """
    return max(_MAX_RATIO * start, _SHARE_OF_CHANCE * math.log(num_classes))


def check_losses(losses: Sequence[float], start: float, num_classes: int, where: str) -> None:
    """Raises Diverged if the median of the last `NUM_STEPS` losses is above `highest_loss`."""
    if len(losses) == NUM_STEPS and median(losses) > highest_loss(start, num_classes):
        reason = (
            f"the median loss of {NUM_STEPS} steps is {median(losses):.3g}, and the loss was {start:.3g} at the start"
        )
        raise Diverged(where, reason)


class Optimization:
    """SGD or AdamW on the trained parameters of `module`, with weight decay, clipping and a schedule as phase and recipe say.

    `ema` is the decay of `average`, the moving average of the weights; 0 for none. `rates` has factors of the learning rate by
    layer.
    """

    def __init__(
        self,
        module: nn.Module,
        phase: Phase,
        recipe: Recipe,
        *,
        ema: float = 0.0,
        rates: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self._module = module
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.optimizer = _optimizer(groups(module, phase, rates), phase, recipe)
        self.schedule = _schedule(self.optimizer, phase, recipe)
        self.average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(ema)) if ema else None
        self._max_norm = recipe.clip_norm or math.inf

    @property
    def learning_rate(self) -> float:
        """Of the next step, for a layer whose factor is 1."""
        group = self.optimizer.param_groups[0]
        return float(group["lr"]) / float(group.get("factor", 1.0))  # a checkpoint of an earlier version has no factor

    def step(self, loss: float, where: str, images: Sequence[Path]) -> float:
        """Moves the parameters by their gradients; returns the norm of the gradient before clipping.

        Raises:
            Diverged: loss or norm is not finite; no parameter was moved. It names `where` and the images of the step.
        """
        norm = float(clip_grad_norm_(self.parameters, self._max_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            reason = f"the loss is {loss:.4g}, the length of the gradient {norm:.4g}"
            raise Diverged(where, reason, _advice(images, self.learning_rate))
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self._module)
        return norm

    def restart(self) -> None:
        """Halves the learning rate for good and forgets gradients, momentum and average: the weights were replaced."""
        self.optimizer.zero_grad()
        self.optimizer.state.clear()
        for group in self.optimizer.param_groups:
            group["lr"] /= 2
        if not isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.base_lrs = [rate / 2 for rate in self.schedule.base_lrs]
        if self.average is not None:
            self.average.n_averaged.zero_()  # the next step copies the weights instead of averaging

    def end_after(self, num_epochs: int) -> None:
        """Moves the end of a cosine schedule."""
        if isinstance(self.schedule, CosineAnnealingLR):
            self.schedule.T_max = num_epochs

    def end_epoch(self, error: float) -> None:
        """Moves the schedule on; the plateau schedule looks at `error`."""
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(error)
        else:
            with warnings.catch_warnings():  # torch does not know that a resumed epoch took its steps earlier
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
                self.schedule.step()

    def state(self) -> dict[str, Any]:
        """Optimizer and schedule, for `load`; the average's weights are apart from it."""
        return {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}

    def load(self, state: Mapping[str, Any], average: Mapping[str, Tensor] | None = None) -> None:
        """Continues from a `state` and the weights of its average."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.average is not None and average is not None:
            self.average.load_state_dict(average)


def _optimizer(parameters: Iterable[dict[str, Any]], phase: Phase, recipe: Recipe) -> Optimizer:
    if phase.optimizer == "adamw":
        return AdamW(parameters, lr=phase.learning_rate, betas=(recipe.momentum, _BETA2))
    return SGD(parameters, lr=phase.learning_rate, momentum=recipe.momentum)


def _schedule(optimizer: Optimizer, phase: Phase, recipe: Recipe) -> ReduceLROnPlateau | LRScheduler:
    if recipe.schedule == "step":
        return StepLR(optimizer, step_size=recipe.patience, gamma=_FACTOR)
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=max(1, phase.epochs))
    # `patience` epochs without a lower error, where torch counts the epochs that it tolerates before it acts
    return ReduceLROnPlateau(optimizer, factor=_FACTOR, patience=recipe.patience - 1, threshold=0.0)


def _advice(images: Sequence[Path], learning_rate: float) -> str:
    names = "\n  ".join(map(str, images))
    return (
        "No weight was changed, and the last checkpoint is as it was. Lower the learning rate "
        f"(now {learning_rate:g}) or clip_norm, and train into another directory. The images of this step:\n  {names}"
    )
