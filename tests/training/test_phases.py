"""What a step of phase 2 is, on one device and on several; where it starts, and what it leaves."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from rankone.model.errors import Interrupted
from rankone.training import pipeline
from rankone.training.data import DataSet
from rankone.training.fit import fit
from rankone.training.loop import Loop
from rankone.training.optimize import Optimization
from rankone.training.phase2 import _check_start
from rankone.training.processes import Resources
from rankone.training.recipe import Phase, Recipe
from rankone.training.run import Run, RunError
from tests.training.helpers import SMALL, StopAfter, loop_of, losses, weights

pytestmark = pytest.mark.usefixtures("light_backbone")

SHORT = SMALL.model_copy(
    update={
        "phase1": Phase(epochs=1, learning_rate=1.0, batch_size=8),
        "phase2": Phase(epochs=2, learning_rate=1e-2, batch_size=8),
    }
)


def trained(data: DataSet, recipe: Recipe, path: Path) -> Path:
    pipeline.train(data, recipe, path)
    return path


@pytest.fixture(scope="module")
def plain(light_backbone: None, photos: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(photos, SHORT, tmp_path_factory.mktemp("runs") / "plain")


def near(found: Path, expected: Path, photos: DataSet) -> None:
    steps = [loss for *_, loss in losses(expected)]
    assert [loss for *_, loss in losses(found)] == pytest.approx(steps, rel=1e-4)
    theirs = weights(expected, photos)
    assert all(torch.allclose(value, theirs[name], atol=1e-4) for name, value in weights(found, photos).items())


@pytest.mark.parametrize("parts", [3, 8])
def test_a_batch_in_parts_gives_the_gradient_of_the_whole(
    photos: DataSet, plain: Path, tmp_path: Path, parts: int
) -> None:
    """The last batch has 4 images: of 8 parts, each is one image, and of 3 parts the last one is smaller."""
    pooling = SHORT.pooling.model_copy(update={"options": {"dim": 256}})
    recipe = SHORT.model_copy(update={"pooling": pooling})
    whole = trained(photos, recipe, tmp_path / "whole")
    near(trained(photos, recipe.model_copy(update={"accumulate": parts}), tmp_path / "parts"), whole, photos)


def test_phase_2_has_to_start_as_phase_1_ended(photos: DataSet, tmp_path: Path) -> None:
    for name, validation in (("held-out", 0.2), ("none", 0.0)):
        recipe = SHORT.model_copy(update={"phase2": Phase(epochs=0, learning_rate=1), "validation": validation})
        path = trained(photos, recipe, tmp_path / name)
        loop = loop_of(Run.open(path), photos)
        _check_start(loop)
        assert loop.state.phase1_error is not None
        right, one = loop.state.phase1_error, 1 / len(loop.images.selecting)
        for apart in (-2, -1, 1, 2):  # an image that lies on the border may fall to either side
            loop.state.phase1_error = right + apart * one
            with pytest.raises(RunError) if abs(apart) > 1 else nullcontext():
                _check_start(loop)
        loop.state.phase1_error = right
        with torch.no_grad():
            loop.classifier.weight.mul_(-1)  # type: ignore[operator]
        with pytest.raises(
            RunError, match=r"phase 2 does not start where phase 1 ended: .* accuracy is 0\.\d+, and was"
        ):
            _check_start(loop)


def test_a_loss_that_is_no_number_on_the_images_that_select_is_rolled_back_to_phase_1(
    photos: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the last step of an epoch went too far."""
    measured = iter([(0.5, 1.0)])
    monkeypatch.setattr(Loop, "measure", lambda *_: next(measured, (0.5, float("nan"))))
    monkeypatch.setattr("rankone.training.phase2._check_start", lambda loop: loop.measure())
    state = pipeline.train(photos, SHORT, tmp_path)
    assert [record.reason for record in state.rollbacks] == [
        "the loss on the images that select the network is nan"
    ] * 4
    assert state.chosen == (1, 0)
    assert state.best is not None
    assert state.best[1] < 10


def test_images_that_steer_are_measured_without_a_graph(plain: Path, photos: DataSet) -> None:
    """Or every representation would be held until the last one is there: gigabytes, of a large data set."""
    loop = loop_of(Run.open(plain), photos)
    seen: list[bool] = []
    loop.classifier.register_forward_hook(lambda _, __, out: seen.append(out.requires_grad))
    loop.measure(loop.encoder, photos.test, "")
    assert seen == [False]


def test_a_moving_average_of_the_weights_becomes_the_network(photos: DataSet, tmp_path: Path) -> None:
    """From the definition: a <- decay a + (1 - decay) w after every step, a = w after the first one."""
    recipe = SHORT.model_copy(update={"ema": 0.7, "validation": 0.0})
    seen: list[torch.Tensor] = []
    step = Optimization.step

    def watching(self: Optimization, *arguments: object) -> float:
        length = step(self, *arguments)  # type: ignore[arg-type]
        if len(self.parameters) > 2:
            seen.append(self.parameters[0].detach().clone())
        return length

    with patch.object(Optimization, "step", watching):
        trained(photos, recipe, tmp_path)
    assert len(seen) == 6
    average = seen[0]
    for value in seen[1:]:
        average = 0.7 * average + 0.3 * value
    found = weights(tmp_path, photos)["backbone.convolutions.0.weight"]
    assert torch.allclose(found, average, atol=1e-7)
    assert not torch.allclose(found, seen[-1], atol=1e-7)


def test_an_average_goes_on_after_an_interruption(photos: DataSet, tmp_path: Path) -> None:
    recipe = SHORT.model_copy(update={"ema": 0.7})
    whole = trained(photos, recipe, tmp_path / "whole")
    loop = loop_of(Run.open(whole), photos)
    assert loop.measure(loop.encoder, loop.images.selecting, "") == pytest.approx(loop.state.best, rel=1e-4)
    run = Run.start(tmp_path / "run", recipe, photos)
    with pytest.raises(Interrupted):
        fit(recipe.build_network(4), photos, run, Resources(stop=StopAfter(12)))
    state = pipeline.trained(tmp_path / "run", photos)[2]
    assert state.position == (2, 0, 2)
    trained(photos, recipe, tmp_path / "run")
    expected = weights(whole, photos)
    assert all(torch.equal(value, expected[name]) for name, value in weights(tmp_path / "run", photos).items())


@pytest.mark.parametrize("changes", [{"schedule": "plateau"}, {"label_smoothing": 0.3}, {"precision": "bfloat16"}])
def test_options_change_the_training_and_it_still_learns(
    photos: DataSet, plain: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    path = trained(photos, SHORT.model_copy(update=changes), tmp_path)
    assert losses(path) != losses(plain)
    records = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    epochs = [record for record in records if record["kind"] == "epoch"]
    assert [record["phase"] for record in epochs] == [1, 2, 2]
    assert epochs[-1]["loss"] < epochs[0]["loss"]
    assert all(record["images_per_s"] > 0 for record in epochs)
