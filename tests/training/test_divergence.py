"""Phase 2 never leaves a worse network than it was given, and says what it gained."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
import torch

from rankone.model.errors import Interrupted
from rankone.training import pipeline
from rankone.training.data import DataSet
from rankone.training.evaluate import Report, doubts, gain
from rankone.training.fit import fit
from rankone.training.optimize import MAX_ROLLBACKS, NUM_STEPS, Diverged, highest_loss
from rankone.training.processes import Resources
from rankone.training.recipe import Phase, Recipe, load_recipe
from rankone.training.run import Run
from rankone.training.selection import training_images
from rankone.training.state import TrainingState
from tests.training.helpers import SMALL, StopAfter, loop_of, weights

pytestmark = pytest.mark.usefixtures("light_backbone", "_undrawn")

DIVERGES = SMALL.model_copy(
    update={
        "phase1": Phase(epochs=20, learning_rate=1.0, batch_size=8),
        "phase2": Phase(epochs=3, learning_rate=30.0, batch_size=1),
        "clip_norm": None,
        "validation": 0.0,
    }
)
"""Twenty-four steps an epoch, far over the rate that this network bears."""


def told(data: DataSet, recipe: Recipe, path: Path) -> tuple[TrainingState, list[str]]:
    lines: list[str] = []
    run = Run.start(path, recipe, data)
    return fit(recipe.build_network(len(data.classes)), data, run, Resources(), report_line=lines.append), lines


@pytest.fixture(scope="module")
def diverged(
    light_backbone: None, photos: DataSet, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TrainingState, list[str]]:
    path = tmp_path_factory.mktemp("runs") / "diverged"
    return path, *told(photos, DIVERGES, path)


def test_a_loss_that_stays_high_is_rolled_back_to_the_best_network_at_half_the_rate(
    diverged: tuple[Path, TrainingState, list[str]],
) -> None:
    path, state, lines = diverged
    assert state.is_finished
    assert state.rollbacks
    start = state.start_loss
    assert start is not None
    first = state.rollbacks[0]
    assert first.learning_rate == 15.0
    assert f"the median loss of {NUM_STEPS} steps is" in first.reason
    assert any("is rolled back to the best network so far and continues at half the rate, 15" in line for line in lines)
    rates = [record.learning_rate for record in state.rollbacks]
    assert len(rates) <= MAX_ROLLBACKS + 1
    assert all(rate is not None for rate in rates[:MAX_ROLLBACKS])
    found = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [line["reason"] for line in found if line["kind"] == "rollback"] == [r.reason for r in state.rollbacks]
    steps = [(line["phase"], line["epoch"], line["step"]) for line in found if line["kind"] == "step"]
    assert len(steps) == len(set(steps))


@pytest.mark.parametrize("changes", [{}, {"validation": 0.2}, {"ema": 0.9}, {"clip_norm": 1.0}])
def test_the_network_that_is_kept_is_no_worse_than_phase_1s(
    photos: DataSet, tmp_path: Path, changes: dict[str, float]
) -> None:
    recipe = DIVERGES.model_copy(update=changes)
    state, _ = told(photos, recipe, tmp_path)
    run, network, _ = pipeline.trained(tmp_path, photos)
    selecting = training_images(photos, recipe).selecting
    after = pipeline.measure(network, recipe, replace(photos, test=selecting))
    earlier = recipe.build_network(len(photos.classes))
    assert run.load_phase1(earlier)
    before = pipeline.measure(earlier, recipe, replace(photos, test=selecting))
    assert state.best is not None
    assert state.start_loss is not None
    assert after.top1 == pytest.approx(1 - state.best[0])
    assert before.top1 is not None
    assert after.top1 is not None
    if "validation" in changes:
        assert after.top1 >= before.top1
    else:
        assert state.best[1] <= state.start_loss


def test_a_rate_at_which_every_loss_is_infinite_leaves_the_network_of_phase_1(photos: DataSet, tmp_path: Path) -> None:
    recipe = DIVERGES.model_copy(update={"phase2": Phase(epochs=3, learning_rate=9e37, batch_size=8)})
    state, lines = told(photos, recipe, tmp_path)
    assert [record.learning_rate for record in state.rollbacks] == [4.5e37, 2.25e37, 1.125e37, None]
    assert lines[-1].endswith("training is rolled back to the best network so far and ends there")
    assert state.chosen is not None
    assert state.chosen[0] == 1
    run = Run.open(tmp_path)
    earlier = recipe.build_network(len(photos.classes))
    assert run.load_phase1(earlier)
    found = weights(tmp_path, photos)
    assert all(torch.equal(found[name], value) for name, value in earlier.state_dict().items())


def test_without_a_phase_1_the_network_of_the_start_is_a_candidate(photos: DataSet, tmp_path: Path) -> None:
    recipe = DIVERGES.model_copy(
        update={
            "phase1": Phase(epochs=0, learning_rate=1),
            "phase2": Phase(epochs=1, learning_rate=9e37, batch_size=8),
        }
    )
    state, _ = told(photos, recipe, tmp_path)
    assert state.chosen is None
    assert state.start_loss == pytest.approx(math.log(4))
    start = recipe.build_network(len(photos.classes), recipe.weights).state_dict()
    assert all(torch.equal(value, start[name]) for name, value in weights(tmp_path, photos).items())


@pytest.mark.parametrize("changes", [{}, {"augment": "strong"}, {"label_smoothing": 0.9}])
def test_the_loss_at_the_start_is_that_of_the_first_steps(
    photos: DataSet, tmp_path: Path, changes: dict[str, object]
) -> None:
    """At a rate that trains nothing. The loss of the images as they are is so much lower that training seemed to diverge."""
    phase2 = Phase(epochs=1, learning_rate=1e-9, batch_size=2)
    learned = Phase(epochs=60, learning_rate=1.0, batch_size=8)
    plain = SMALL.model_copy(update={"phase1": learned, "phase2": phase2, "flip": False, "validation": 0.0})
    state, _ = told(photos, plain.model_copy(update=changes), tmp_path)
    losses = state.recent_losses
    assert (len(losses), state.rollbacks) == (len(photos.train) // 2, [])
    assert state.start_loss == pytest.approx(sum(losses) / len(losses), rel=0.4)  # steps draw v_0 anew
    assert state.start_loss is not None
    assert state.best is not None
    assert (state.start_loss > 1.2 * state.best[1]) == bool(changes)  # `best` is of images as they are


def test_a_moving_average_that_was_resumed_is_forgotten_by_a_rollback(photos: DataSet, tmp_path: Path) -> None:
    recipe = DIVERGES.model_copy(update={"ema": 0.9, "phase2": Phase(epochs=1, learning_rate=1e-4, batch_size=8)})
    told(photos, recipe, tmp_path)
    loop = loop_of(Run.open(tmp_path), photos)
    with loop.optimization(loop.network, recipe.phase2, ema=recipe.ema) as optimization:
        assert optimization.average is not None
        stale = {name: torch.full_like(value, 7) for name, value in optimization.average.state_dict().items()}
        optimization.average.load_state_dict(stale)
        assert loop.roll_back(optimization, Diverged("here", "the loss is nan"))
        for parameter in optimization.parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimization.step(1.0, "here", [])
        averaged = optimization.average.module.state_dict().values()
    assert all(map(torch.equal, averaged, loop.network.state_dict().values()))


@pytest.mark.parametrize("looks", [45, 75, 100])
def test_a_stop_after_a_rollback_resumes_to_the_same_weights(
    diverged: tuple[Path, TrainingState, list[str]], photos: DataSet, tmp_path: Path, looks: int
) -> None:
    path, state, _ = diverged
    run = Run.start(tmp_path / "run", DIVERGES, photos)
    with pytest.raises(Interrupted):
        fit(DIVERGES.build_network(4), photos, run, Resources(stop=StopAfter(looks)))
    resumed, _ = told(photos, DIVERGES, tmp_path / "run")
    assert resumed.rollbacks == state.rollbacks
    expected = weights(path, photos)
    assert all(torch.equal(value, expected[name]) for name, value in weights(tmp_path / "run", photos).items())


def test_what_is_too_high_is_twice_the_start_or_half_of_what_guessing_costs() -> None:
    assert highest_loss(2.0, 10) == 4.0
    assert highest_loss(0.01, 10) == pytest.approx(math.log(10) / 2)


def test_every_recipe_of_the_package_bounds_the_gradient() -> None:
    names = [entry.name for entry in resources.files("rankone.training").joinpath("recipes").iterdir()]
    assert len(names) >= 7
    assert {load_recipe(name.removesuffix(".yaml")).clip_norm for name in names if name.endswith(".yaml")} == {1.0}


def report(top1: float, recall: float, phase1: dict[str, float] | None, num_classes: int = 10) -> Report:
    figures = dict.fromkeys(Report.model_fields, 0.5) | {
        "top1": top1,
        "recall_at_1": recall,
        "phase1": phase1,
        "short": None,
    }
    per_class = {str(number): top1 for number in range(num_classes)}
    whole = {"num_images": 9, "num_alone": 0, "intervals": {}, "confusion": None, "reliability": None}
    return Report.model_validate({**figures, **whole, "per_class": per_class})


def test_the_gain_of_phase_2_is_a_sentence() -> None:
    assert gain(report(0.9, 0.8, None)) is None
    same = report(0.9, 0.8, None)
    assert gain(report(0.9, 0.8, same.metrics)) == (
        "Phase 2 gained nothing: the network is the one that phase 1 ended with."
    )
    before = same.metrics | {"top1": 0.85, "recall_at_1": 0.9}
    assert gain(report(0.9, 0.8, before)) == (
        "Phase 2 changed test accuracy by +5.0 points (0.850 to 0.900) and recall@1 by -10.0 points (0.900 to 0.800)."
    )


def test_a_network_that_is_no_good_is_doubted() -> None:
    assert doubts(report(0.9, 0.8, {"top1": 0.9})) == []
    assert doubts(report(0.2, 0.8, None)) == []
    (little,) = doubts(report(0.19, 0.8, None))
    assert "is 0.190, and guessing has 0.100" in little
    (worse,) = doubts(report(0.8, 0.8, {"top1": 0.9}))
    assert "was 0.900 after phase 1" in worse
    assert doubts(report(0.8, 0.8, None, num_classes=2)) == []
    assert len(doubts(report(0.7, 0.8, None, num_classes=2))) == 1


def test_the_report_begins_with_the_gain_and_shows_the_rollback(
    diverged: tuple[Path, TrainingState, list[str]], photos: DataSet
) -> None:
    path, state, _ = diverged
    found = pipeline.evaluate(path, photos)
    assert found.phase1 is not None
    page = (path / "report.md").read_text()
    assert gain(found) in page[: page.index("Measured on")]  # type: ignore[operator]
    assert f"Phase 2 diverged in epoch {state.rollbacks[0].epoch + 1}" in page
    bundle = pipeline.export(path, photos, path / "bundle")
    training = bundle.manifest.training
    assert training is not None
    assert (training.rollbacks, training.phase1_metrics) == (tuple(state.rollbacks), found.phase1)
