"""Killed by SIGKILL within a phase, and gone on with: the losses and weights of a run that was never killed, bit for bit."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from rankone.model import backbone
from rankone.model.errors import Interrupted
from rankone.training import pipeline
from rankone.training.checkpoint import latest
from rankone.training.data import DataSet
from rankone.training.fit import fit
from rankone.training.processes import Resources, StopRequest
from rankone.training.run import Run, RunError
from tests.light import one_layer
from tests.training.helpers import SMALL, losses, weights

pytestmark = pytest.mark.usefixtures("light_backbone")

EMBEDDING, PHASE_1, PHASE_2 = 3, 8, 23
"""Batches and steps, each of which looks at the stop request once, until the kill: 5 batches, 15 steps, 1 batch, 6 steps."""


class KillAfter(StopRequest):
    """Kills its own process, as a power cut would, when it was looked at `looks` times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def __bool__(self) -> bool:
        self.looks -= 1
        if self.looks < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return False


def train_until_killed(data: DataSet, path: Path, looks: int, save_every_s: float, threads: int) -> None:
    torch.set_num_threads(threads)  # sums are in another order with another number of them
    backbone.BACKBONES["vgg16"] = one_layer  # this process is its own
    network = SMALL.build_network(len(data.classes))
    fit(network, data, Run.start(path, SMALL, data), Resources(stop=KillAfter(looks)), save_every_s=save_every_s)


def killed(data: DataSet, path: Path, looks: int, save_every_s: float) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=train_until_killed, args=(data, path, looks, save_every_s, torch.get_num_threads())
    )
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


@pytest.fixture(scope="module")
def whole(light_backbone: None, photos: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "whole"
    pipeline.train(photos, SMALL, path)
    return path


@pytest.mark.parametrize(
    ("looks", "save_every_s", "position"),
    [
        pytest.param(PHASE_1, 0.0, (1, 0, 3), marks=pytest.mark.slow),
        pytest.param(PHASE_1, 600.0, None, marks=pytest.mark.slow),
        pytest.param(PHASE_2, 0.0, (2, 0, 2), marks=pytest.mark.slow),
        (PHASE_2 + 4, 600.0, (2, 1, 0)),
    ],
)
def test_a_killed_run_goes_on_to_the_same_losses_and_weights(
    photos: DataSet, whole: Path, tmp_path: Path, looks: int, save_every_s: float, position: tuple[int, int, int] | None
) -> None:
    """From a checkpoint within the epoch, which is there after every step, or from the last one before."""
    killed(photos, tmp_path, looks, save_every_s)
    if position is None:
        assert latest(tmp_path) is None
    else:
        assert pipeline.trained(tmp_path, photos)[2].position == position
    assert pipeline.train(photos, SMALL, tmp_path).is_finished
    assert losses(tmp_path) == losses(whole)
    expected, found = weights(whole, photos), weights(tmp_path, photos)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("line", "earlier"), [("color: managed\n", {"color": "ignored"}), ("jpeg: reduced\n", {"jpeg": "whole"})]
)
def test_a_run_of_before_a_field_of_preprocessing_keeps_its_pixels(
    photos: DataSet, whole: Path, tmp_path: Path, line: str, earlier: dict[str, str]
) -> None:
    """The same command resumes it, and its bundle will say what becomes of images; no other difference is overlooked."""
    (name,) = earlier
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    recipe = (tmp_path / "recipe.yaml").read_text()
    (tmp_path / "recipe.yaml").write_text(recipe.replace(line, ""))
    assert f"{name}:" not in (tmp_path / "recipe.yaml").read_text()
    assert getattr(Run.start(tmp_path, SMALL, photos).recipe.preprocessing, name) == earlier[name]
    assert Run.open(tmp_path).recipe == SMALL.model_copy(update=earlier)
    with pytest.raises(RunError, match=r"recipe.seed\)"):
        Run.start(tmp_path, SMALL.model_copy(update={"seed": 9}), photos)
    with pytest.raises(RunError, match=rf"recipe.{name}\)"):
        Run.start(whole, SMALL.model_copy(update=earlier), photos)


def test_a_run_killed_while_it_embeds_embeds_no_image_twice(photos: DataSet, whole: Path, tmp_path: Path) -> None:
    killed(photos, tmp_path, EMBEDDING, 600.0)
    files = {path.name: path.stat() for path in (tmp_path / "embeddings").iterdir()}
    assert sorted(name.rpartition(".")[2] for name in files) == ["f32", "f32", "partial"]
    stop = StopRequest()
    stop.requested = True
    network = SMALL.build_network(len(photos.classes))
    with pytest.raises(Interrupted):
        fit(network, photos, Run.open(tmp_path), Resources(stop=stop))
    for name, before in files.items():
        after = (tmp_path / "embeddings" / name).stat()
        assert (after.st_size, after.st_ino) == (before.st_size, before.st_ino)
    pipeline.train(photos, SMALL, tmp_path)
    assert losses(tmp_path) == losses(whole)
    assert not (tmp_path / "embeddings").exists()
