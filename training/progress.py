"""How far a training is: what its checkpoint says beside the weights."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from model.bundle import EpochRecord


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
    """Phase and epoch with the fewest errors so far, of equal ones with the lowest loss; none if nothing steers."""
    best: tuple[float, float] | None = None
    """Error and loss of that epoch."""
    handed_over: float | None = None
    """Error on the images on which phase 2 has to start as phase 1 ended; none if there was no phase 1."""

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

    def choose(self, steering: tuple[float, float] | None) -> bool:
        """Whether the epoch that ended last is the best so far; if so, it is noted as the chosen one."""
        if steering is None or (self.best is not None and steering >= self.best):
            return False
        self.chosen, self.best = (self.phase, self.epoch - 1), steering
        return True

    def next_phase(self) -> None:
        """Opens the first epoch of the next phase."""
        self.phase, self.epoch, self.step = self.phase + 1, 0, 0
