"""What only the whole backbone shows, and training in processes of its own, which know no other one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rankone.training import pipeline
from rankone.training.checkpoint import latest
from rankone.training.data import DataSet
from rankone.training.recipe import Phase
from tests.training.helpers import SMALL, weights


def test_both_phases_are_recorded_and_learn(run_path: Path, photos: DataSet) -> None:
    _, _, state = pipeline.trained(run_path, photos)
    assert state.is_finished
    assert [record.phase for record in state.history] == [1] * 20 + [2]
    first, last = state.history[0], state.history[19]
    assert last.loss < first.loss / 2
    assert last.train_error < 0.1
    assert all(record.validation_error is not None for record in state.history)


@pytest.mark.parametrize("layers", ["one", pytest.param("all", marks=pytest.mark.slow)])
def test_phase_2_moves_every_layer_and_phase_1_only_the_classifier(
    photos: DataSet, tmp_path: Path, layers: str, request: pytest.FixtureRequest
) -> None:
    if layers == "one":
        request.getfixturevalue("light_network")
    start = SMALL.build_network(len(photos.classes)).state_dict()
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
    while latest(tmp_path / "run") is None:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield process
    process.kill()
    process.wait()


@pytest.mark.usefixtures("_undrawn")
@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_or_killed_process_leaves_a_checkpoint_that_can_be_used(
    long_training: subprocess.Popen[bytes], photos: DataSet, tmp_path: Path, number: int, status: int
) -> None:
    time.sleep(1)
    long_training.send_signal(number)
    _, errors = long_training.communicate(timeout=60)
    assert long_training.returncode == status, errors
    _, _, state = pipeline.trained(tmp_path / "run", photos)
    assert state.phase == 2
    assert pipeline.evaluate(tmp_path / "run", photos).num_images == len(photos.test)


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_same_batch(photos: DataSet, tmp_path: Path) -> None:
    """By torchrun, over gloo; a batch of 19 is dealt out unevenly, the last one, of one image, leaves a process idle."""
    second = Phase(epochs=1, learning_rate=1e-2, batch_size=19)
    recipe = SMALL.model_copy(update={"phase1": Phase(epochs=1, learning_rate=1, batch_size=8), "phase2": second})
    whole = tmp_path / "whole"
    pipeline.train(photos, recipe, whole)
    (tmp_path / "recipe.yaml").write_text(recipe.yaml())
    data = str(photos.train.paths[0].parents[2])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "rankone"]
    command += ["train", data, str(tmp_path / "two"), "--recipe", str(tmp_path / "recipe.yaml")]
    ended = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    lines = [(path / "metrics.jsonl").read_text().splitlines() for path in (whole, tmp_path / "two")]
    records = [[json.loads(line) for line in found] for found in lines]
    steps = [[record["loss"] for record in found if record["kind"] == "step"] for found in records]
    assert steps[1] == pytest.approx(steps[0], rel=1e-4)
    expected = weights(whole, photos)
    assert all(
        torch.allclose(value, expected[name], atol=1e-4) for name, value in weights(tmp_path / "two", photos).items()
    )
    one, two = (pipeline.trained(path, photos)[2].history[-1] for path in (whole, tmp_path / "two"))
    assert two.validation_error == one.validation_error
    assert two.validation_loss == pytest.approx(one.validation_loss, rel=1e-4)
    assert ended.stdout.count("selected by") == 1
