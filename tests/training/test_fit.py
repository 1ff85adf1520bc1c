from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from rankone.model.backbone import WeightsError
from rankone.model.errors import Interrupted
from rankone.training import pipeline
from rankone.training.checkpoint import latest
from rankone.training.data import DataSet, Split
from rankone.training.fit import fit
from rankone.training.processes import DeviceError, Resources, stop_on_signal
from rankone.training.recipe import Phase, Recipe
from rankone.training.run import Run, RunError
from tests.training.helpers import SMALL, StopAfter, losses, weights

pytestmark = pytest.mark.usefixtures("light_backbone")


@pytest.fixture(scope="module")
def uninterrupted(
    light_backbone: None, photos: DataSet, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, DataSet]:
    path = tmp_path_factory.mktemp("whole")
    pipeline.train(photos, SMALL, path)
    return path, photos


@pytest.mark.parametrize("looks", [0, 3, 6, 13, 20, 22, 24, 26])
def test_a_stop_anywhere_resumes_to_the_same_weights(
    uninterrupted: tuple[Path, DataSet], tmp_path: Path, looks: int
) -> None:
    """In embedding and in epochs of phase 1, in steps and in validation of phase 2: bit for bit, with a v_0 drawn a step."""
    whole, photos = uninterrupted
    run = Run.start(tmp_path / "run", SMALL, photos)
    with pytest.raises(Interrupted):
        fit(SMALL.build_network(len(photos.classes)), photos, run, Resources(stop=StopAfter(looks)))
    state = pipeline.train(photos, SMALL, tmp_path / "run")
    assert state.is_finished
    expected, found = weights(whole, photos), weights(tmp_path / "run", photos)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert len(state.history) == 5


def test_a_stop_saves_the_step_before_it_once(photos: DataSet, tmp_path: Path) -> None:
    """Every checkpoint has the next number, and here each step has one."""
    run = Run.start(tmp_path, SMALL, photos)
    with pytest.raises(Interrupted):
        fit(SMALL.build_network(len(photos.classes)), photos, run, Resources(stop=StopAfter(13)), save_every_s=0)
    saved, num_steps = latest(tmp_path), len(losses(tmp_path))
    assert saved is not None
    assert num_steps > 0
    assert saved.name == f"checkpoint-{num_steps:06d}"


def test_a_finished_run_is_left_alone(uninterrupted: tuple[Path, DataSet]) -> None:
    path, photos = uninterrupted
    before = latest(path)
    (path / "report.json").write_text("{}")
    assert pipeline.train(photos, SMALL, path).is_finished
    assert latest(path) == before
    assert (path / "report.json").read_text() == "{}"


def test_another_recipe_or_other_data_does_not_continue_a_run(uninterrupted: tuple[Path, DataSet]) -> None:
    path, photos = uninterrupted
    with pytest.raises(RunError, match="holds a run with another recipe or other data"):
        pipeline.train(photos, SMALL.model_copy(update={"seed": 1}), path)
    fewer = DataSet(photos.name, photos.classes, Split(photos.train.paths[:-1], photos.train.labels[:-1]), photos.test)
    with pytest.raises(RunError, match="another recipe or other data"):
        pipeline.train(fewer, SMALL, path)


def test_weights_that_cannot_be_had_leave_no_run_behind(photos: DataSet, tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        pipeline.train(photos, SMALL.model_copy(update={"weights": "nowhere.pt"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_no_run_says_so(photos: DataSet, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a training run"):
        pipeline.evaluate(tmp_path, photos)
    Run.start(tmp_path / "run", SMALL, photos)
    with pytest.raises(RunError, match="has no checkpoint yet; train it first"):
        pipeline.evaluate(tmp_path / "run", photos)


def test_a_device_that_is_not_there_is_refused(
    photos: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="torch finds no GPU .* use --device cpu"):
        pipeline.train(photos, SMALL, tmp_path / "run", device="cuda")
    assert not (tmp_path / "run").exists()


def test_the_second_signal_acts_as_ever() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born ignoring it
    try:
        with stop_on_signal() as stop:
            assert not stop
            signal.raise_signal(signal.SIGINT)
            assert stop
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_recipes_that_only_differ_in_flips_train_differently(photos: DataSet, tmp_path: Path) -> None:
    recipe: Recipe = SMALL.model_copy(update={"phase2": Phase(epochs=0, learning_rate=1)})
    states = []
    for flip in (True, False):
        path = tmp_path / str(flip)
        pipeline.train(photos, recipe.model_copy(update={"flip": flip}), path)
        states.append(weights(path, photos)["classifier.weight"])
    assert not torch.equal(*states)
