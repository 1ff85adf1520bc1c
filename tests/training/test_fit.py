from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from model.backbone import WeightsError
from model.errors import Interrupted
from tests.conftest import RECIPE
from training import pipeline
from training.datasets import DataSet, Split
from training.fit import fit, hold_out
from training.interrupt import StopRequest, stop_on_signal
from training.pooling import Pooling
from training.recipe import Phase, Recipe
from training.run import Run, RunError

SMALL = RECIPE.model_copy(
    update={
        "size": 32,
        "pooling": Pooling(options={"dim": 256, "resample": True}),
        "phase1": Phase(epochs=3, learning_rate=1.0, batch_size=8),
        "phase2": Phase(epochs=2, learning_rate=1e-3, batch_size=8, momentum=0.5),
    }
)


class StopAfter(StopRequest):
    """Asks to stop when it was looked at `looks` times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def __bool__(self) -> bool:
        self.looks -= 1
        return self.looks < 0


def weights(path: Path, data: DataSet) -> dict[str, torch.Tensor]:
    return pipeline.trained(path, data)[1].state_dict()


@pytest.fixture(scope="module")
def uninterrupted(photos: DataSet, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DataSet]:
    path = tmp_path_factory.mktemp("whole")
    pipeline.train(photos, SMALL, path)
    return path, photos


def test_both_phases_are_recorded_and_learn(run_path: Path, photos: DataSet) -> None:
    run, network = pipeline.trained(run_path, photos)
    progress, _ = run.load(network)
    assert progress.finished
    assert [record.phase for record in progress.history] == [1] * 20 + [2]
    first, last = progress.history[0], progress.history[19]
    assert last.loss < first.loss / 2
    assert last.train_error < 0.1
    assert all(record.validation_error is not None for record in progress.history)


def test_phase_2_moves_every_layer_and_phase_1_only_the_classifier(photos: DataSet, tmp_path: Path) -> None:
    start = pipeline.network_of(SMALL, len(photos.classes)).state_dict()
    no_epochs = Phase(epochs=0, learning_rate=1)
    for phase, moved_backbone in (("phase2", False), ("phase1", True)):
        recipe = SMALL.model_copy(update={phase: no_epochs, "validation": 0.0})
        pipeline.train(photos, recipe, tmp_path / phase)
        after = weights(tmp_path / phase, photos)
        changed = {name for name, value in after.items() if not torch.equal(value, start[name])}
        backbone = {name for name in after if name.startswith("backbone.")}
        assert {"classifier.weight", "classifier.bias"} <= changed
        # a network whose classifier is zero sends no gradient back in its first step, but in its second
        assert (changed & backbone == backbone) is moved_backbone
        assert not any(name.startswith("pooling.") for name in changed)


@pytest.mark.parametrize("looks", [0, 4, 6, 9, 11, 13, 15])
def test_a_stop_anywhere_resumes_to_the_same_weights(
    uninterrupted: tuple[Path, DataSet], tmp_path: Path, looks: int
) -> None:
    """In embedding and in epochs of phase 1, in steps and in validation of phase 2: bit for bit, with a v_0 drawn a step."""
    whole, photos = uninterrupted
    run = Run.start(tmp_path / "run", SMALL, photos)
    with pytest.raises(Interrupted):
        fit(pipeline.network_of(SMALL, len(photos.classes)), photos.train, run, stop=StopAfter(looks))
    progress = pipeline.train(photos, SMALL, tmp_path / "run")
    assert progress.finished
    expected, found = weights(whole, photos), weights(tmp_path / "run", photos)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert len(progress.history) == 5


def test_a_finished_run_is_left_alone(uninterrupted: tuple[Path, DataSet]) -> None:
    path, photos = uninterrupted
    before = (path / "checkpoint.pt").stat().st_mtime_ns
    assert pipeline.train(photos, SMALL, path).finished
    assert (path / "checkpoint.pt").stat().st_mtime_ns == before


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


def test_a_run_killed_in_phase_1_embeds_no_image_twice(
    uninterrupted: tuple[Path, DataSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after some batches: what they left is used, to the same weights; when the phase is over it is gone."""
    whole, photos = uninterrupted
    run = Run.start(tmp_path / "run", SMALL, photos)
    network = pipeline.network_of(SMALL, len(photos.classes))
    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", lambda *_, **__: None)  # as when killed: nothing but the embeddings is there
        with pytest.raises(Interrupted):
            fit(network, photos.train, run, stop=StopAfter(3))
    kept = sorted((tmp_path / "run" / "embeddings").rglob("*.npy"))
    assert [path.parent.name for path in kept] == ["as-they-are", "as-they-are", "mirrored"]
    times = [path.stat().st_mtime_ns for path in kept]
    with pytest.raises(Interrupted):
        fit(pipeline.network_of(SMALL, len(photos.classes)), photos.train, run, stop=StopAfter(3))
    assert [path.stat().st_mtime_ns for path in kept] == times
    pipeline.train(photos, SMALL, tmp_path / "run")
    assert all(
        torch.equal(value, weights(whole, photos)[name]) for name, value in weights(tmp_path / "run", photos).items()
    )
    assert not (tmp_path / "run" / "embeddings").exists()


def test_a_damaged_checkpoint_says_so(uninterrupted: tuple[Path, DataSet], tmp_path: Path) -> None:
    import shutil

    path, photos = uninterrupted
    shutil.copytree(path, tmp_path / "run")
    data = (path / "checkpoint.pt").read_bytes()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(RunError, match="checkpoint.pt cannot be read"):
        pipeline.train(photos, SMALL, tmp_path / "run")


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
    with pytest.raises(RunError, match="torch finds no GPU .* use --device cpu"):
        pipeline.train(photos, SMALL, tmp_path / "run", device="cuda")
    assert not (tmp_path / "run").exists()


def test_held_out_images_are_of_every_class_and_never_all() -> None:
    split = Split(tuple(Path(str(i)) for i in range(23)), (0,) * 20 + (1,) * 2 + (2,))
    fitted, held_out = hold_out(split, 0.1, seed=0)
    assert sorted(fitted + held_out) == list(range(23))
    assert [split.labels[i] for i in held_out].count(0) == 2
    assert [split.labels[i] for i in held_out].count(1) == 1
    assert [split.labels[i] for i in held_out].count(2) == 0
    assert hold_out(split, 0.0, seed=0) == (list(range(23)), [])
    assert hold_out(split, 0.1, seed=1) != (fitted, held_out)


@pytest.fixture
def long_training(photos: DataSet, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`rankone train` with far more epochs than anyone waits for, in phase 2."""
    recipe = SMALL.model_copy(update={"phase2": Phase(epochs=10_000, learning_rate=1e-6, batch_size=8)})
    (tmp_path / "recipe.yaml").write_text(recipe.yaml())
    data = photos.train.paths[0].parents[2]
    command = [sys.executable, "-m", "rankone", "train", str(data), "run", "--recipe", "recipe.yaml"]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoint.pt").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_a_stopped_or_killed_process_leaves_a_checkpoint_that_can_be_used(
    long_training: subprocess.Popen[bytes], photos: DataSet, tmp_path: Path, number: int, status: int
) -> None:
    time.sleep(1)
    long_training.send_signal(number)
    _, errors = long_training.communicate(timeout=60)
    assert long_training.returncode == status, errors
    run, network = pipeline.trained(tmp_path / "run", photos)
    progress, states = run.load(network)
    assert progress.phase == 2
    assert "optimizer" in states or progress.epoch == 0
    assert pipeline.evaluate(tmp_path / "run", photos).num_images == len(photos.test)


def test_the_second_signal_acts_as_ever() -> None:
    with stop_on_signal() as stop:
        assert not stop
        signal.raise_signal(signal.SIGINT)
        assert stop
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_recipes_that_only_differ_in_flips_train_differently(photos: DataSet, tmp_path: Path) -> None:
    recipe: Recipe = SMALL.model_copy(update={"phase2": Phase(epochs=0, learning_rate=1)})
    states = []
    for flip in (True, False):
        path = tmp_path / str(flip)
        pipeline.train(photos, recipe.model_copy(update={"flip": flip}), path)
        states.append(weights(path, photos)["classifier.weight"])
    assert not torch.equal(*states)
