from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from rankone.training import pipeline
from rankone.training.data import DataSet
from rankone.training.optimize import Diverged, Optimization
from rankone.training.recipe import Phase, Recipe
from tests.training.helpers import SMALL

pytestmark = pytest.mark.usefixtures("light_backbone")

PHASE = Phase(epochs=6, learning_rate=1.0)


def module(parameter: nn.Parameter) -> nn.Module:
    return nn.ParameterList([parameter])


def rates(recipe: Recipe, errors: list[float]) -> list[float]:
    """The learning rate of every epoch, when the epochs end with these errors."""
    optimization = Optimization(module(nn.Parameter(torch.zeros(1))), PHASE, recipe)
    found = []
    for error in errors:
        found.append(optimization.learning_rate)
        optimization.optimizer.step()
        optimization.end_epoch(error)
    return found


def test_the_rate_falls_to_a_tenth_when_the_error_has_not_dropped_for_the_epochs_of_patience() -> None:
    errors = [0.5, 0.4, 0.4, 0.4, 0.39, 0.39, 0.39, 0.39]
    assert rates(Recipe(schedule="plateau", patience=2), errors) == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01])


def test_the_rate_falls_in_steps_or_along_a_cosine() -> None:
    assert rates(Recipe(schedule="step", patience=2), [0.5] * 5) == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    cosine = [0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * epoch / 6)))) for epoch in range(6)]
    assert rates(Recipe(), [0.5] * 6) == pytest.approx(cosine, abs=1e-6)


@pytest.mark.parametrize(("clip", "moved"), [(None, 5.0), (10.0, 5.0), (1.0, 1.0)])
def test_a_gradient_that_is_longer_than_the_clip_is_scaled_down(clip: float | None, moved: float) -> None:
    parameter = nn.Parameter(torch.zeros(2))
    optimization = Optimization(module(parameter), PHASE, Recipe(clip_norm=clip))
    parameter.grad = torch.tensor([3.0, 4.0])
    assert optimization.step(1.0, "here", []) == pytest.approx(5.0)
    assert float(parameter.detach().norm()) == pytest.approx(moved)
    assert parameter.grad is None


@pytest.mark.parametrize(("loss", "gradient"), [(float("nan"), 1.0), (float("inf"), 1.0), (1.0, float("nan"))])
def test_what_is_no_number_moves_nothing_and_names_the_images(loss: float, gradient: float) -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimization = Optimization(module(parameter), PHASE, Recipe())
    parameter.grad = torch.tensor([gradient])
    with pytest.raises(
        Diverged, match=r"phase 2, epoch 1, step 7: the loss is .*(now 1).*\n  a.png\n  b.png"
    ) as raised:
        optimization.step(loss, "phase 2, epoch 1, step 7", [Path("a.png"), Path("b.png")])
    assert str(loss if loss != 1.0 else gradient) in str(raised.value)
    assert float(parameter.detach()) == 0


def test_a_state_goes_on_where_it_was() -> None:
    def steps(optimization: Optimization, parameter: nn.Parameter, count: int) -> None:
        for _ in range(count):
            parameter.grad = parameter.detach() + 1
            optimization.step(1.0, "", [])
            optimization.end_epoch(0.5)

    whole, first, second = (nn.Parameter(torch.ones(3)) for _ in range(3))
    steps(Optimization(module(whole), PHASE, Recipe(schedule="plateau", patience=3)), whole, 7)
    stopped = Optimization(module(first), PHASE, Recipe(schedule="plateau", patience=3))
    steps(stopped, first, 4)
    second.data.copy_(first.data)
    resumed = Optimization(module(second), PHASE, Recipe(schedule="plateau", patience=3))
    resumed.load(stopped.state())
    steps(resumed, second, 3)
    assert torch.equal(whole, second)


def test_a_first_phase_that_diverges_stops_and_names_the_images(photos: DataSet, tmp_path: Path) -> None:
    broken = SMALL.model_copy(update={"phase1": Phase(epochs=3, learning_rate=9e37, batch_size=8), "clip_norm": None})
    with pytest.raises(Diverged, match=r"phase 1, epoch \d, step \d: .* the last checkpoint is as it was") as raised:
        pipeline.train(photos, broken, tmp_path)
    named = [Path(line.strip()) for line in str(raised.value).splitlines()[1:]]
    assert 0 < len(named) <= 8
    assert set(named) <= set(photos.train.paths)


@pytest.mark.parametrize("schedule", ["plateau", "step", "cosine"])
def test_half_the_rate_stays_half_under_every_schedule(schedule: Literal["plateau", "step", "cosine"]) -> None:
    """And the step after it knows nothing of the gradients and the momentum before it."""
    recipe = Recipe(schedule=schedule, patience=1)
    whole, halved = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    expected, optimization = (
        Optimization(module(whole), PHASE, recipe),
        Optimization(module(halved), PHASE, recipe),
    )
    for epoch in range(5):
        for each in (expected, optimization):
            each.parameters[0].grad = torch.ones(1)
            each.step(1.0, "here", [])
            each.end_epoch(0.5)
        if epoch == 1:
            halved.grad = torch.full((1,), torch.nan)
            optimization.restart()
            assert optimization.parameters[0].grad is None
            assert not optimization.optimizer.state
        assert optimization.learning_rate == pytest.approx(expected.learning_rate / (1 if epoch < 1 else 2))
