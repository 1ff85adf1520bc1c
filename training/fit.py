"""The two phases: first the classifier alone, on embeddings computed once; then all layers, end to end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rankone.model.network import Network
from rankone.training.data import DataSet
from rankone.training.embeddings import Work
from rankone.training.journal import Journal
from rankone.training.loop import Trainer
from rankone.training.phase1 import phase1
from rankone.training.phase2 import phase2
from rankone.training.progress import say
from rankone.training.report import JSON
from rankone.training.run import Run
from rankone.training.selection import steering_of
from rankone.training.state import Progress

EMBEDDINGS: Final = "embeddings"
"""Folder of the run for the embeddings of phase 1, where no other is given; gone when the phase is over."""

_SAVE_EVERY_S: Final = 600.0


def fit(
    network: Network,
    data: DataSet,
    run: Run,
    work: Work,
    *,
    cache: Path | None = None,
    board: bool = False,
    save_every_s: float = _SAVE_EVERY_S,
    tell: Callable[[str], object] = say,
) -> Progress:
    """Trains `network` by the run's recipe on `data`, from where the run's checkpoint is to the end of both phases.

    The same recipe gives the same network whether or not it was interrupted or killed on the way.

    Args:
        network: as it starts; where there is a checkpoint, it gets its weights.
        data: whose test images are only touched where the recipe's protocol is the paper's.
        run: the directory.
        work: on which device and how images are gone through.
        cache: folder for the embeddings of phase 1, kept for other runs.
        board: write for TensorBoard, too.
        save_every_s: seconds after which the checkpoint is renewed within an epoch.
        tell: gets what the user should know: what runs in which precision, what steers, where phase 2 went back.

    Raises:
        Interrupted: a stop was requested; the checkpoint holds everything up to the last whole step.
        Diverged: phase 1 came to a loss or gradient that is not finite. Phase 2 goes back and tries again instead.
        DataError: a file that cannot be read as an image.
    """
    trainer = Trainer(network, steering_of(data, run.recipe), run, work, save_every_s, tell)
    if trainer.progress.finished:
        return trainer.progress
    if work.world.leads:
        (run.path / JSON).unlink(missing_ok=True)  # it measured what is about to change
        tell(f"{trainer.forward.words}; on {work.world.words}")
        tell(f"steered by: {trainer.steering.words}")
    with Journal(run.path if work.world.leads else None, trainer.progress, board=board) as trainer.journal:
        if trainer.progress.phase == 1:
            phase1(trainer, cache or run.path / EMBEDDINGS)
        if work.world.leads:
            shutil.rmtree(run.path / EMBEDDINGS, ignore_errors=True)
        if trainer.progress.phase == 2:
            phase2(trainer)
    return trainer.progress
