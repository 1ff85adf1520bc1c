"""What a step of phase 2 is, on one device and on several; where it starts, and what it leaves."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from rankone.training import pipeline
from rankone.training.data import DataSet
from rankone.training.embeddings import Work
from rankone.training.loop import Trainer
from rankone.training.phase2 import _check_start
from rankone.training.recipe import Phase, Recipe
from rankone.training.run import Run, RunError
from rankone.training.selection import steering_of
from tests.training.test_fit import SMALL, weights
from tests.training.test_resume import losses

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
        network = pipeline.network_of(recipe, 4)
        trainer = Trainer(network, steering_of(photos, recipe), Run.open(path), Work(), 600)
        _check_start(trainer)
        assert trainer.progress.handed_over is not None
        right, one = trainer.progress.handed_over, 1 / len(trainer.steering.selecting)
        for apart in (-2, -1, 1, 2):  # an image that lies on the border may fall to either side
            trainer.progress.handed_over = right + apart * one
            with pytest.raises(RunError) if abs(apart) > 1 else nullcontext():
                _check_start(trainer)
        trainer.progress.handed_over = right
        with torch.no_grad():
            network.classifier.weight.mul_(-1)  # type: ignore[union-attr, operator]
        with pytest.raises(
            RunError, match=r"phase 2 does not start where phase 1 ended: .* accuracy is 0\.\d+, and was"
        ):
            _check_start(trainer)


def test_a_loss_that_is_no_number_on_the_images_that_select_goes_back_to_phase_1(
    photos: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the last step of an epoch went too far."""
    measured = iter([(0.5, 1.0)])
    monkeypatch.setattr(Trainer, "measure", lambda *_: next(measured, (0.5, float("nan"))))
    monkeypatch.setattr("rankone.training.phase2._check_start", lambda trainer: trainer.measure())
    progress = pipeline.train(photos, SHORT, tmp_path)
    assert [record.reason for record in progress.returns] == [
        "the loss on the images that select the network is nan"
    ] * 4
    assert progress.chosen == (1, 0)
    assert progress.best is not None
    assert progress.best[1] < 10


def test_images_that_steer_are_measured_without_a_graph(plain: Path, photos: DataSet) -> None:
    """Or every representation would be held until the last one is there: gigabytes, of a large data set."""
    network = pipeline.network_of(SHORT, 4)
    trainer = Trainer(network, steering_of(photos, SHORT), Run.open(plain), Work(), 600)
    seen: list[bool] = []
    network.classifier.register_forward_hook(lambda _, __, out: seen.append(out.requires_grad))  # type: ignore[union-attr]
    trainer.measure(trainer.forward, photos.test, "")
    assert seen == [False]


def test_a_moving_average_of_the_weights_becomes_the_network(photos: DataSet, tmp_path: Path) -> None:
    """From the definition: a <- decay a + (1 - decay) w after every step, a = w after the first one."""
    from unittest.mock import patch

    from rankone.training.optimize import Optimization

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
    from rankone.model.errors import Interrupted
    from rankone.training.fit import fit
    from tests.training.test_fit import StopAfter

    recipe = SHORT.model_copy(update={"ema": 0.7})
    whole = trained(photos, recipe, tmp_path / "whole")
    steering = steering_of(photos, recipe)
    trainer = Trainer(pipeline.network_of(recipe, 4), steering, Run.open(whole), Work(), 600)
    assert steering.images is not None
    assert trainer.measure(trainer.forward, steering.images, "") == pytest.approx(trainer.progress.best, rel=1e-4)
    run = Run.start(tmp_path / "run", recipe, photos)
    with pytest.raises(Interrupted):
        fit(pipeline.network_of(recipe, 4), photos, run, Work(stop=StopAfter(12)))
    progress = pipeline.trained(tmp_path / "run", photos)[2]
    assert progress.position == (2, 0, 2)
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
