"""What the manifest of a bundle says of how its network was trained."""

from __future__ import annotations

from pydantic import AliasChoices, BaseModel, ConfigDict, Field


class Record(BaseModel):
    """A part of the manifest. Unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EpochRecord(Record):
    """One epoch of training, as it ended. Errors are parts of the images, in [0, 1]."""

    phase: int
    epoch: int
    """Within its phase, from 0."""
    loss: float
    train_error: float
    validation_error: float | None
    """Of the images that steer; none where there are none."""
    validation_loss: float | None = None
    learning_rate: float | None
    """None for a fit that has no rate."""


class SolverRecord(Record):
    """A classifier that phase 1 fitted until it converged, with one strength of the penalty on its weights."""

    strength: float
    """Of the penalty, as a multiple of the total variance of the embeddings."""
    iterations: int
    gradient: float
    """Its length at the end, as a part of its length at zero weights."""
    converged: bool
    """False if the limit of iterations ended it."""
    loss: float
    """Mean cross entropy of the images that it was fitted to."""
    train_error: float
    validation_error: float | None = None
    """Of the images that chose the strength; None for a fit to all images."""
    validation_loss: float | None = None


class FitRecord(Record):
    """How phase 1 chose the strength of the penalty, and the classifier that it ended with."""

    attempts: tuple[SolverRecord, ...] = ()
    """From the strongest to the weakest; none if no images were left to choose with."""
    final: SolverRecord
    chosen_by: str
    """Which images chose the strength, in words."""


class RollbackRecord(Record):
    """Phase 2 diverged, and training was rolled back to the best network so far."""

    epoch: int
    """Of phase 2, from 0: the one that diverged and was begun again."""
    step: int
    """Steps of that epoch that had been taken."""
    reason: str
    learning_rate: float | None
    """The rate with which training continued, half of the one before; none where it ended instead."""


class TrainingRecord(Record):
    """How the network came to be."""

    steered_by: str
    """Which images drove the learning rate and the choice of epoch, in words."""
    chosen: tuple[int, int] | None
    """Phase and epoch whose network this is; none where it is the one that training began with."""
    history: tuple[EpochRecord, ...]
    rollbacks: tuple[RollbackRecord, ...] = Field(default=(), validation_alias=AliasChoices("rollbacks", "returns"))
    """Each time that phase 2 diverged."""
    phase1_metrics: dict[str, float] = Field(default_factory=dict)
    """Figures of the network that phase 1 ended with, on the same test images as the manifest's; empty if not measured."""
    phase1_fit: FitRecord | None = Field(default=None, exclude_if=lambda fit: fit is None)
    """Of a phase 1 that was solved until it converged; None for gradient descent."""
