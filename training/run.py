"""A run: the directory that training writes, from which it resumes and from which a bundle is exported.

recipe.yaml      what was asked for
dataset.json     what it was trained on: name, classes, counts
embeddings/      those of phase 1, while it lasts
checkpoint.pt    the network, how far it is, and what the optimizer needs to go on; replaced whole or not at all
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from model.bundle import EpochRecord
from model.errors import RankoneError
from training.datasets import DataSet
from training.recipe import Recipe, load_recipe

CHECKPOINT: Final = "checkpoint.pt"
CHECKPOINT_SCHEMA: Final = 1


class RunError(RankoneError, ValueError):
    """A run directory that does not fit what is asked of it; the message says what to do."""


class Progress(BaseModel):
    """How far a run is: phases and epochs are those in work, `step` the optimizer steps already done in that epoch."""

    model_config = ConfigDict(extra="forbid")

    phase: int = 1
    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    num_wrong: int = 0
    num_seen: int = 0
    history: list[EpochRecord] = []

    @property
    def finished(self) -> bool:
        """Both phases are through."""
        return self.phase > 2

    def count(self, loss: float, num_wrong: int, num_images: int) -> None:
        """Adds a step of `num_images` images with this mean loss to the epoch in work."""
        self.loss_sum += loss * num_images
        self.num_wrong += num_wrong
        self.num_seen += num_images

    def end_epoch(self, validation_error: float | None, learning_rate: float) -> EpochRecord:
        """Writes the epoch in work to the history and opens the next one."""
        record = EpochRecord(
            phase=self.phase,
            epoch=self.epoch,
            loss=self.loss_sum / self.num_seen,
            train_error=self.num_wrong / self.num_seen,
            validation_error=validation_error,
            learning_rate=learning_rate,
        )
        self.history.append(record)
        self.epoch, self.step = self.epoch + 1, 0
        self.loss_sum, self.num_wrong, self.num_seen = 0.0, 0, 0
        return record

    def next_phase(self) -> None:
        """Opens the first epoch of the next phase."""
        self.phase, self.epoch, self.step = self.phase + 1, 0, 0


class DataRecord(BaseModel):
    """What a run was trained on, without its images."""

    name: str
    classes: tuple[str, ...]
    num_train: int
    num_test: int

    @classmethod
    def of(cls, data: DataSet) -> DataRecord:
        """The record of a data set."""
        return cls(name=data.name, classes=data.classes, num_train=len(data.train), num_test=len(data.test))


class Run:
    """A run directory with its recipe and data; made by `start`, opened by `open`."""

    def __init__(self, path: Path, recipe: Recipe, data: DataRecord) -> None:
        self.path, self.recipe, self.data = path, recipe, data

    @classmethod
    def start(cls, path: Path, recipe: Recipe, data: DataSet) -> Run:
        """A new run in `path`, or the one that is there, if it was started with the same recipe and data.

        Raises:
            RunError: another run is there.
        """
        record = DataRecord.of(data)
        if (path / "recipe.yaml").exists():
            run = cls.open(path)
            if (run.recipe, run.data) != (recipe, record):
                raise RunError(
                    f"{path} holds a run with another recipe or other data; "
                    "choose another directory, or repeat the first command to resume it"
                )
            return run
        path.mkdir(parents=True, exist_ok=True)
        _replace(path / "dataset.json", record.model_dump_json(indent=2).encode())
        _replace(path / "recipe.yaml", recipe.yaml().encode())
        return cls(path, recipe, record)

    @classmethod
    def open(cls, path: Path) -> Run:
        """The run in `path`.

        Raises:
            RunError: there is none.
            RecipeError: its recipe cannot be read.
        """
        try:
            data = DataRecord.model_validate_json((path / "dataset.json").read_bytes())
        except (OSError, ValidationError) as error:
            raise RunError(f"{path} is not a training run: {error}") from error
        return cls(path, load_recipe(path / "recipe.yaml"), data)

    @property
    def checkpoint_path(self) -> Path:
        """Where the checkpoint is, or will be."""
        return self.path / CHECKPOINT

    def save(self, network: torch.nn.Module, progress: Progress, **states: Mapping[str, Any]) -> None:
        """Replaces the checkpoint, whole and synced to disk, by the network, how far it is and the `states` given."""
        checkpoint = {
            "schema": CHECKPOINT_SCHEMA,
            "network": network.state_dict(),
            "progress": progress.model_dump(),
            **states,
        }
        partial = self.checkpoint_path.with_suffix(".partial")
        with partial.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.checkpoint_path)

    def load(self, network: torch.nn.Module) -> tuple[Progress, dict[str, Any]]:
        """Puts the checkpoint into `network`; returns how far it is and the other states, or a start where there is none.

        Raises:
            RunError: a checkpoint that cannot be read or belongs to another network.
        """
        if not self.checkpoint_path.exists():
            return Progress(), {}
        try:
            checkpoint = torch.load(self.checkpoint_path, map_location="cpu", weights_only=True)
            if checkpoint.pop("schema") != CHECKPOINT_SCHEMA:
                raise RunError(f"{self.checkpoint_path} was written by another version of rankone; train again")
            network.load_state_dict(checkpoint.pop("network"))
            return Progress.model_validate(checkpoint.pop("progress")), checkpoint
        except RunError:
            raise
        except Exception as error:  # torch raises many kinds for a damaged file
            raise RunError(f"{self.checkpoint_path} cannot be read: {error}") from error


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(data)
    partial.replace(path)
