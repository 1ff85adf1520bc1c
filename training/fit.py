"""The two phases: first the classifier alone, on embeddings computed once; then all layers, end to end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rankone.model.network import Network
from rankone.training.data import DataSet
from rankone.training.encoder import Encoder
from rankone.training.evaluate import REPORT
from rankone.training.journal import Journal
from rankone.training.loop import Loop
from rankone.training.parameters import freeze
from rankone.training.phase1 import phase1
from rankone.training.phase2 import phase2
from rankone.training.processes import Resources
from rankone.training.progress import print_line
from rankone.training.run import SHORT, Run
from rankone.training.selection import training_images
from rankone.training.state import TrainingState

EMBEDDINGS: Final = "embeddings"
"""Folder of the run for the embeddings of phase 1 if no other is given; removed after the phase."""


def fit(
    network: Network,
    data: DataSet,
    run: Run,
    resources: Resources,
    *,
    cache: Path | None = None,
    tensorboard: bool = False,
    save_every_s: float = 600.0,
    report_line: Callable[[str], object] = print_line,
) -> TrainingState:
    """Trains `network` by the run's recipe on `data`, from the run's checkpoint to the end of both phases.

    The same recipe gives the same network whether or not the training was interrupted or killed on the way.

    Args:
        network: as it starts; if there is a checkpoint, it gets its weights.
        data: its test images are used only under the recipe's protocol `paper`.
        run: the directory.
        resources: devices, processes, and how to stop them.
        cache: folder for the embeddings of phase 1, kept for other runs.
        tensorboard: write for TensorBoard, too.
        save_every_s: seconds after which the checkpoint is renewed within an epoch.
        report_line: is called with each message for the user: on precision and devices, the images that select, and rollbacks.

    Raises:
        Interrupted: a stop was requested; the checkpoint holds everything up to the last whole step.
        Diverged: a loss or gradient of phase 1 is not finite. Phase 2 is rolled back and tries again instead.
        DataError: a file that cannot be read as an image.
        RecipeError: the recipe names a layer that the network lacks.
    """
    state = run.load(network) or TrainingState()
    resources.processes.barrier()  # no process renews the checkpoint while another one reads it
    if state.is_finished:
        return state
    freeze(network, run.recipe)
    encoder = Encoder(network, resources.processes.device, run.recipe.precision, compile=run.recipe.compile)
    images = training_images(data, run.recipe)
    is_main = resources.processes.is_main
    if is_main:
        for stale in (REPORT, SHORT):  # of the network that is about to change
            (run.path / stale).unlink(missing_ok=True)
        report_line(f"{encoder.description}; on {resources.processes.description}")
        report_line(f"epoch and learning rate selected by: {images.description}")
    with Journal(run.path if is_main else None, state, tensorboard=tensorboard) as journal:
        loop = Loop(encoder, state, images, run, resources, journal, save_every_s=save_every_s, report_line=report_line)
        if loop.state.phase == 1:
            phase1(loop, cache or run.path / EMBEDDINGS)
        if is_main:
            shutil.rmtree(run.path / EMBEDDINGS, ignore_errors=True)
        if loop.state.phase == 2:
            phase2(loop)
    return loop.state
