"""How far a training is: what its checkpoint says beside the weights."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from rankone.model.bundle import EpochRecord, ReturnRecord


class Progress(BaseModel):
    """Phase and epoch are those in work, `step` the optimizer steps already done in that epoch."""

    model_config = ConfigDict(extra="forbid")

    phase: int = 1
    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    num_wrong: int = 0
    num_seen: int = 0
    history: list[EpochRecord] = []
    chosen: tuple[int, int] | None = None
    """Phase and epoch of the best network so far; none where that is the one training began with."""
    best: tuple[float, float] | None = None
    """Error and loss of that network on the images that select."""
    handed_over: float | None = None
    """Error on these images when phase 1 ended, from the embeddings on disk; none if there was no phase 1."""
    start_loss: float | None = None
    """Loss on these images when phase 2 began; none before it did."""
    recent: list[float] = []
    """Losses of the last steps of phase 2, in which `training.divergence` looks for what went wrong."""
    returns: list[ReturnRecord] = []
    """Each time that phase 2 diverged."""

    @property
    def finished(self) -> bool:
        """Both phases are through."""
        return self.phase > 2

    @property
    def position(self) -> tuple[int, int, int]:
        """Phase, epoch and step; grows from step to step."""
        return self.phase, self.epoch, self.step

    def count(self, loss: float, num_wrong: int, num_images: int) -> None:
        """Adds a step of `num_images` images with this mean loss to the epoch in work."""
        self.loss_sum += loss * num_images
        self.num_wrong += num_wrong
        self.num_seen += num_images
        self.step += 1

    def end_epoch(self, steering: tuple[float, float] | None, learning_rate: float) -> EpochRecord:
        """Writes the epoch in work to the history and opens the next one; `steering` is error and loss where images steer."""
        record = EpochRecord(
            phase=self.phase,
            epoch=self.epoch,
            loss=self.loss_sum / self.num_seen,
            train_error=self.num_wrong / self.num_seen,
            validation_error=steering and steering[0],
            validation_loss=steering and steering[1],
            learning_rate=learning_rate,
        )
        self.history.append(record)
        self.epoch, self.step = self.epoch + 1, 0
        self.loss_sum, self.num_wrong, self.num_seen = 0.0, 0, 0
        return record

    def choose(self, measured: tuple[float, float], *, by_loss: bool) -> bool:
        """Whether the epoch that ended last is the best so far; if so, it is noted as the chosen one.

        Of phase 1 the last epoch counts, whatever its figures: its loss has a single minimum, and the best of fifty epochs on
        a few images would be the luckiest one, which phase 2 could not beat.

        Args:
            measured: its error and loss on the images that select.
            by_loss: the lowest loss is the best; otherwise the fewest errors, of equal ones the lowest loss.
        """
        order = slice(None, None, -1 if by_loss else 1)
        if self.phase > 1 and self.best is not None and measured[order] >= self.best[order]:
            return False
        self.chosen, self.best = (self.phase, self.epoch - 1), measured
        return True

    def restart_epoch(self, reason: str, learning_rate: float | None) -> ReturnRecord:
        """Notes that the epoch in work diverged, and is to be done again with `learning_rate`."""
        record = ReturnRecord(epoch=self.epoch, step=self.step, reason=reason, learning_rate=learning_rate)
        self.returns.append(record)
        self.step, self.recent = 0, []
        self.loss_sum, self.num_wrong, self.num_seen = 0.0, 0, 0
        return record

    def next_phase(self) -> None:
        """Opens the first epoch of the next phase."""
        self.phase, self.epoch, self.step = self.phase + 1, 0, 0
        self.loss_sum, self.num_wrong, self.num_seen = 0.0, 0, 0
