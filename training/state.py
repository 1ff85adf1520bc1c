"""Where a training stands: one object, which a checkpoint saves and loads whole."""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from torch import Tensor

from rankone.model.network import Network
from rankone.model.training_record import EpochRecord, FitRecord, RollbackRecord
from rankone.training.optimize import Optimization

Measured = tuple[float, float]
"""Error and loss of a network, in evaluation mode."""


class TrainingState(BaseModel):
    """Phase and epoch are the current ones; `step` counts the optimizer steps already done in the epoch.

    A checkpoint holds the fields up to `rollbacks` as JSON; tensors and optimizer are other files.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    phase: int = 1
    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    num_wrong: int = 0
    num_seen: int = 0
    history: list[EpochRecord] = []
    chosen: tuple[int, int] | None = None
    """Phase and epoch of the best network so far; None while that is the network training began with."""
    best: Measured | None = None
    """Of that network, on the images that select."""
    phase1_error: float | None = None
    """Error on these images when phase 1 ended, from the embeddings on disk; None if phase 1 had no epochs."""
    phase1_fit: FitRecord | None = None
    """Of a phase 1 that was solved until it converged."""
    start_loss: float | None = None
    """Loss on these images when phase 2 began."""
    num_epochs: int | None = None
    """Of phase 2, fitted to the recipe's time; None if there is no limit, or no epoch ended yet."""
    spent_s: float = 0.0
    """Seconds of training, counted if the recipe limits them."""
    recent_losses: list[float] = []
    """Of the last steps of phase 2: they show whether it diverges."""
    rollbacks: list[RollbackRecord] = Field(default=[], validation_alias=AliasChoices("rollbacks", "returns"))
    """Each time that phase 2 diverged."""
    tensors: dict[str, dict[str, Tensor]] = Field(default={}, exclude=True)
    """`network` in a checkpoint; `best`, the weights in which the best network differs; `average`, the moving average."""
    optimizer: dict[str, Any] = Field(default={}, exclude=True)
    """Of `Optimization.state`, between two steps or epochs."""

    @property
    def is_finished(self) -> bool:
        """Whether both phases are done."""
        return self.phase > 2

    @property
    def position(self) -> tuple[int, int, int]:
        """Phase, epoch and step; grows with every step."""
        return self.phase, self.epoch, self.step

    def capture(self, network: Network, optimization: Optimization | None) -> None:
        """Takes in the weights, the optimizer and the moving average as they are now, to be saved."""
        self.tensors = {"network": network.state_dict(), "best": self.tensors.get("best", {})}
        self.optimizer = {} if optimization is None else optimization.state()
        if optimization is not None and optimization.average is not None:
            self.tensors["average"] = optimization.average.state_dict()

    def add_step(self, loss: float, num_wrong: int, num_images: int) -> None:
        """Adds a step of `num_images` images with this mean loss to the current epoch."""
        self.loss_sum += loss * num_images
        self.num_wrong += num_wrong
        self.num_seen += num_images
        self.step += 1

    def end_epoch(
        self, held_out: Measured | None, learning_rate: float | None, fit: FitRecord | None = None
    ) -> EpochRecord:
        """Adds the current epoch to the history and begins the next; `held_out` is measured on held-out images, if any.

        With `fit` it is the only epoch of a phase 1 that was solved until it converged.
        """
        self.phase1_fit = fit or self.phase1_fit
        record = EpochRecord(
            phase=self.phase,
            epoch=self.epoch,
            loss=fit.final.loss if fit else self.loss_sum / self.num_seen,
            train_error=fit.final.train_error if fit else self.num_wrong / self.num_seen,
            validation_error=held_out and held_out[0],
            validation_loss=held_out and held_out[1],
            learning_rate=learning_rate,
        )
        self.history.append(record)
        self.epoch += 1
        self._restart_counts()
        return record

    def choose(self, measured: Measured, network: Network, *, by_loss: bool) -> bool:
        """Keeps `network` if the epoch that ended last is the best so far; returns whether it is.

        `by_loss`, the lowest loss is the best; otherwise the fewest errors, and of equal ones the lowest loss. In phase 1 the
        last epoch always is: its loss has a single minimum. Choosing the best of fifty epochs on few images would mostly choose
        by luck, and phase 2 could not beat that figure.
        """
        order = slice(None, None, -1 if by_loss else 1)
        if self.phase > 1 and self.best is not None and measured[order] >= self.best[order]:
            return False
        self.chosen, self.best = (self.phase, self.epoch - 1), measured
        self._keep(network, "classifier." if self.phase == 1 else "")
        return True

    def load_best(self, network: Network) -> None:
        """Puts the weights of the best network so far into `network`."""
        network.load_state_dict({**network.state_dict(), **self.tensors.get("best", {})})

    def begin_phase2(self, measured: Measured, network: Network, start_loss: float) -> None:
        """Records the error and loss at the start of phase 2; only a better network replaces it.

        `start_loss` is that of the images as the first steps see them.
        """
        self.start_loss = start_loss
        if self.best is None:
            self.best = measured
            self._keep(network)

    def roll_back(self, reason: str, learning_rate: float | None) -> RollbackRecord:
        """Records that the current epoch diverged; it is repeated with `learning_rate`, or training ends if that is None."""
        record = RollbackRecord(epoch=self.epoch, step=self.step, reason=reason, learning_rate=learning_rate)
        self.rollbacks.append(record)
        self.recent_losses = []
        self._restart_counts()
        return record

    def end_phase(self, network: Network, error: float | None = None) -> None:
        """Makes the best weights those of `network` and begins the next phase; `error` is that of phase 1."""
        self.load_best(network)
        if self.best is not None:
            self._keep(network)
        if self.phase == 1:
            self.phase1_error = error
        self.phase, self.epoch = self.phase + 1, 0
        self._restart_counts()

    def _restart_counts(self) -> None:
        self.step = 0
        self.loss_sum, self.num_wrong, self.num_seen = 0.0, 0, 0

    def _keep(self, network: Network, prefix: str = "") -> None:
        """Copies the weights whose names begin with `prefix`; later steps change the originals."""
        weights = network.state_dict().items()
        self.tensors["best"] = {n: value.detach().cpu().clone() for n, value in weights if n.startswith(prefix)}
