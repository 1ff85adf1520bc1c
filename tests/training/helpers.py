"""What the tests of training share: a recipe that takes seconds, stops at a given step, and what a run left."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from rankone.training import pipeline
from rankone.training.data import DataSet
from rankone.training.encoder import Encoder
from rankone.training.journal import Journal
from rankone.training.loop import Loop
from rankone.training.processes import Resources, StopRequest
from rankone.training.recipe import Phase, PoolingRecipe
from rankone.training.run import Run
from rankone.training.selection import training_images
from rankone.training.state import TrainingState
from tests.conftest import RECIPE

CPU = torch.device("cpu")

SMALL = RECIPE.model_copy(
    update={
        "size": 32,
        "pooling": PoolingRecipe(options={"dim": 256, "resample": True}),
        "phase1": Phase(epochs=3, learning_rate=1.0, batch_size=8),
        "phase2": Phase(epochs=2, learning_rate=1e-3, batch_size=8),
        "momentum": 0.5,
    }
)


class StopAfter(StopRequest):
    """Asks to stop when it was checked `checks` times."""

    def __init__(self, checks: int) -> None:
        super().__init__()
        self.checks = checks

    def __bool__(self) -> bool:
        self.checks -= 1
        return self.checks < 0


def loop_of(run: Run, data: DataSet) -> Loop:
    """The loop of a run, from its checkpoint; it prints and records nothing."""
    network = run.recipe.build_network(len(data.classes))
    state = run.load(network) or TrainingState()
    images = training_images(data, run.recipe)
    encoder = Encoder(network, CPU, run.recipe.precision)
    journal = Journal(None, state)
    return Loop(encoder, state, images, run, Resources(), journal, save_every_s=600, report_line=lambda _: None)


def weights(path: Path, data: DataSet) -> dict[str, torch.Tensor]:
    """Of the best network of the run in `path`."""
    return pipeline.trained(path, data)[1].state_dict()


def losses(path: Path) -> list[tuple[int, int, int, float]]:
    """Phase, epoch, step and loss of every step of the run in `path`."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [(line["phase"], line["epoch"], line["step"], line["loss"]) for line in lines if line["kind"] == "step"]
