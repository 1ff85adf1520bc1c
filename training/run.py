"""A run: the directory that training writes, from which it resumes and from which a bundle is exported.

recipe.yaml          what was asked for
dataset.json         what it was trained on: name, classes, counts, fingerprint
metrics.jsonl        every step and epoch, see `training.journal`
checkpoint-000012/   the training state, see `training.checkpoint`
phase1.safetensors   the network that phase 1 ended with: shows what phase 2 gained
embeddings/          of phase 1, until it ends
short.safetensors    the map to short embeddings, see `training.short`
report.*             the figures, see `training.report`
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError
from safetensors.torch import load_file
from safetensors.torch import save as serialize

from rankone.model.bundle import DatasetRecord
from rankone.model.errors import RankoneError
from rankone.model.folders import name_of
from rankone.model.network import Network
from rankone.model.preprocessing import EARLIER
from rankone.training import checkpoint
from rankone.training.data import DataSet
from rankone.training.recipe import Recipe, load_recipe
from rankone.training.state import TrainingState

PHASE1: Final = "phase1.safetensors"
SHORT: Final = "short.safetensors"


class RunError(RankoneError, ValueError):
    """A run directory that does not fit the request; the message says what to do."""


class DataRecord(BaseModel):
    """What a run was trained on, without its images."""

    name: str
    classes: tuple[str, ...]
    num_train: int
    num_validation: int
    num_test: int
    protocol: str
    fingerprint: str
    """Of all files and their labels, sha256 in hex."""
    skipped: tuple[str, ...] = ()
    """A sentence for every image that could not be decoded, and was left out."""

    @classmethod
    def of(cls, data: DataSet, skipped: tuple[str, ...] = ()) -> DataRecord:
        """The record of a data set; reads every file once for its fingerprint, and raises DataError if it cannot."""
        fingerprints = "".join(split.fingerprint for split in data.splits.values())
        return cls(
            name=data.name,
            classes=data.classes,
            num_train=len(data.train),
            num_validation=len(data.validation) if data.validation else 0,
            num_test=len(data.test),
            protocol=data.protocol,
            fingerprint=hashlib.sha256(fingerprints.encode()).hexdigest(),
            skipped=skipped,
        )

    @property
    def for_bundle(self) -> DatasetRecord:
        """The same for the manifest of a bundle."""
        return DatasetRecord(name=self.name, num_train=self.num_train, num_test=self.num_test, split=self.protocol)


class Run:
    """A run directory with its recipe and data; created by `start`, opened by `open`."""

    def __init__(self, path: Path, recipe: Recipe, data: DataRecord) -> None:
        self.path, self.recipe, self.data = path, recipe, data

    @classmethod
    def start(cls, path: Path, recipe: Recipe, data: DataSet, skipped: tuple[str, ...] = ()) -> Run:
        """A new run in `path`, or the one with the same recipe and data; one in which nothing is trained yet is replaced.

        Raises:
            RunError: `path` holds another run, in which something is trained.
        """
        if name_of(path).encode() != os.fsencode(path):
            raise RunError(f"{name_of(path)}: a run is a directory whose path is plain UTF-8; choose another")
        record = DataRecord.of(data, skipped)
        untrained = checkpoint.discard_untrained(path)
        if (path / "recipe.yaml").exists():
            run = cls.open(path)
            had = load_recipe(path / "recipe.yaml").model_fields_set
            earlier = {name: value for name, value in EARLIER.items() if name not in had}
            wanted = recipe.model_copy(update=earlier)  # it had no choice when it began
            differing = run._differing(wanted, record)
            if not differing:
                return run
            if not untrained:
                raise RunError(
                    f"{name_of(path)} holds a run with another recipe or other data ({', '.join(differing)}); "
                    "choose another directory, or repeat the first command to resume it"
                )
        path.mkdir(parents=True, exist_ok=True)
        replace_file(path / "dataset.json", record.model_dump_json(indent=2).encode())
        replace_file(path / "recipe.yaml", recipe.yaml().encode())
        return cls(path, recipe, record)

    @classmethod
    def open(cls, path: Path) -> Run:
        """The run in `path`; raises RunError if there is none, RecipeError if its recipe cannot be read.

        A recipe that does not say what becomes of colour profiles, or of large JPEGs, is of a time when nothing did.
        """
        try:
            data = DataRecord.model_validate_json((path / "dataset.json").read_bytes())
        except (OSError, ValidationError) as error:
            raise RunError(f"{name_of(path)} is not a training run: {error}") from error
        return cls(path, load_recipe(path / "recipe.yaml", **EARLIER), data)

    def save(self, state: TrainingState) -> None:
        """Replaces the checkpoint, whole and synced to disk; raises CheckpointError if it could not be written."""
        checkpoint.save(self.path, state, self.recipe.model_dump(mode="json"), self.data.model_dump(mode="json"))

    def load(self, network: Network) -> TrainingState | None:
        """Puts the checkpoint's weights into `network`; returns its state, or None if there is no checkpoint.

        Raises:
            CheckpointError: it cannot be read, or belongs to another network.
        """
        state = checkpoint.load(self.path)
        if state is not None:
            try:
                network.load_state_dict(state.tensors.pop("network"))
            except (RuntimeError, KeyError) as error:
                raise checkpoint.CheckpointError(
                    f"the checkpoint in {self.path} is of another network: {error}"
                ) from error
        return state

    def save_phase1(self, network: Network) -> None:
        """Keeps the weights that phase 1 ended with; raises CheckpointError if they could not be written."""
        tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
        try:
            replace_file(self.path / PHASE1, serialize(tensors))
        except OSError as error:
            raise checkpoint.not_written(self.path, error) from error

    def load_phase1(self, network: Network) -> bool:
        """Puts the weights that phase 1 ended with into `network`; False if the run kept none."""
        path = self.path / PHASE1
        if path.exists():
            network.load_state_dict(load_file(path))
        return path.exists()

    def _differing(self, recipe: Recipe, data: DataRecord) -> list[str]:
        """What the run was started with, and is other than this. What was left out may be gone by now."""
        ours, theirs = dict(self.recipe), dict(recipe)
        names = [name for name in dict(data) if name != "skipped" and getattr(self.data, name) != getattr(data, name)]
        return [f"recipe.{name}" for name in ours if ours[name] != theirs[name]] + [f"data.{name}" for name in names]


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file whole and synced to disk, or leaves the previous one."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
