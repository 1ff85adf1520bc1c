"""Phase 1 solved by L-BFGS in a training: what it hands on, reports, resumes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from rankone.cli import show
from rankone.model.errors import Interrupted
from rankone.model.network import Network
from rankone.model.training_record import TrainingRecord
from rankone.training import logistic, phase1, pipeline
from rankone.training.data import DataSet, Split
from rankone.training.data.batches import batches
from rankone.training.embeddings import Rows
from rankone.training.fit import fit
from rankone.training.logistic import LogisticProblem
from rankone.training.optimize import Diverged
from rankone.training.processes import Resources
from rankone.training.recipe import Phase, PoolingRecipe, Recipe, RecipeError, load_recipe
from rankone.training.report.plots import history
from rankone.training.run import Run
from rankone.training.selection import hold_out, training_images
from rankone.training.state import TrainingState
from tests.training.helpers import SMALL, StopAfter, weights

pytestmark = pytest.mark.usefixtures("light_backbone", "_undrawn")

FIRST = SMALL.phase1.model_copy(update={"solver": "lbfgs"})
ALONE = Phase(epochs=0, learning_rate=1)
SOLVED = SMALL.model_copy(update={"phase1": FIRST, "phase2": ALONE, "pooling": PoolingRecipe(options={"dim": 256})})
NUM_CHECKS = 7
"""Batches that are embedded, each of which looks at the stop request once: 2 of training images, 1 held out, 2 mirrored …"""


def told(data: DataSet, recipe: Recipe, path: Path, stop: StopAfter | None = None) -> tuple[TrainingState, list[str]]:
    lines: list[str] = []
    run = Run.start(path, recipe, data)
    resources = Resources(stop=stop)
    return fit(recipe.build_network(len(data.classes)), data, run, resources, report_line=lines.append), lines


def penalized_loss(network: Network, recipe: Recipe, split: Split, strength: float, moved: float) -> float:
    """The objective on images and mirror images, read anew; `moved` along a direction that has no special meaning."""
    images = torch.cat(list(batches(split, recipe.preprocessing, [list(range(len(split)))])))
    with torch.no_grad():
        rows = network.embed(torch.cat([images, images.flip(3)])).double()
        classifier = network.classifier
        assert isinstance(classifier, torch.nn.Linear)
        step = torch.sin(torch.arange(classifier.weight.numel()).double()).view_as(classifier.weight)
        weight = classifier.weight.double() + moved * step
        labels = torch.tensor(split.labels).repeat(2)
        loss = F.cross_entropy(rows @ weight.T + classifier.bias.double(), labels)
        decay = strength * (rows - rows.mean(0)).square().sum(1).mean()
        return float(loss + decay / 2 * weight.square().sum())


def test_the_network_has_the_weights_of_the_minimum(photos: DataSet, tmp_path: Path) -> None:
    state, _ = told(photos, SOLVED, tmp_path)
    _, network, _ = pipeline.trained(tmp_path, photos)
    network.eval()
    assert state.phase1_fit is not None
    strength = state.phase1_fit.final.strength
    split = training_images(photos, SOLVED).fitted
    here, left, right = (
        penalized_loss(network, SOLVED, split, strength, moved) for moved in (0.0, -1e-3 / strength**0.5, 1e-3 / strength**0.5)
    )  # fmt: skip
    assert here < min(left, right)
    assert (right - left) / (left + right - 2 * here) == pytest.approx(0, abs=0.1)  # in the middle of a parabola
    record = state.history[0]
    assert (len(state.history), record.phase, record.learning_rate) == (1, 1, None)
    assert record.validation_error == state.phase1_fit.final.validation_error
    assert state.phase1_error == record.validation_error
    alone = TrainingRecord(steered_by="", chosen=(1, 0), history=tuple(state.history))
    assert history(alone).light.startswith(b"\x89PNG")  # without a learning rate to draw


def test_phase_2_the_report_and_the_metrics_go_on_from_it(
    photos: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = SOLVED.model_copy(update={"phase2": Phase(epochs=1, learning_rate=1e-4, batch_size=8), "minutes": 5.0})
    state = pipeline.train(photos, recipe, tmp_path)
    pipeline.evaluate(tmp_path, photos)
    assert [epoch.phase for epoch in state.history] == [1, 2]
    fitted = state.phase1_fit
    assert fitted is not None
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    attempts = [line for line in lines if line["kind"] == "fit"]
    assert [line["strength"] for line in attempts if not line["is_final"]] == list(logistic.STRENGTHS)
    assert attempts[-1]["strength"] == fitted.final.strength
    text = (tmp_path / "report.md").read_text()
    assert f"Phase 1 was solved by L-BFGS in {fitted.final.iterations} iterations" in text
    assert "chosen from 5 by the images that select" in text
    show.training(state, tmp_path)
    assert f"phase 1: {fitted.final.iterations} iterations of L-BFGS" in capsys.readouterr().out
    kept = TrainingRecord(steered_by="", chosen=None, history=(), phase1_fit=fitted)
    assert TrainingRecord.model_validate_json(kept.model_dump_json()).phase1_fit == fitted
    assert "phase1_fit" not in TrainingRecord(steered_by="", chosen=None, history=()).model_dump()


def test_an_interrupted_solution_is_found_again_to_the_bit(photos: DataSet, tmp_path: Path) -> None:
    told(photos, SOLVED, tmp_path / "whole")
    with pytest.raises(Interrupted, match="the same command resumes it"):
        told(photos, SOLVED, tmp_path / "cut", StopAfter(NUM_CHECKS))
    assert list((tmp_path / "cut" / "embeddings").glob("*.f32"))  # it was within the solver
    state, _ = told(photos, SOLVED, tmp_path / "cut")
    whole, cut = (weights(tmp_path / name, photos) for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert kinds == ["fit"] * (len(logistic.STRENGTHS) + 1) + ["epoch"]
    assert state.is_finished


def test_what_did_not_converge_is_named(photos: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "MAX_ITERATIONS", 10)
    monkeypatch.setattr(phase1, "MAX_ITERATIONS", 10)
    _, lines = told(photos, SOLVED, tmp_path)
    assert any("L-BFGS stopped at its limit of 10 iterations with penalty 1e-06" in line for line in lines)


def test_without_held_out_images_no_mirrored_pair_is_divided(
    photos: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[LogisticProblem, list[int]]] = []

    def watched(problem: LogisticProblem, held_out: object, apart: list[int], between: object) -> object:
        asked.append((problem, apart))
        return logistic.fit(problem, None, apart)

    monkeypatch.setattr(phase1, "fit", watched)
    recipe = SOLVED.model_copy(update={"validation": 0.0, "sampling": "balanced", "label_smoothing": 0.1})
    state, _ = told(photos, recipe, tmp_path)
    ((problem, apart),) = asked
    first = hold_out(photos.train, logistic.APART, 0)[1]
    assert apart == [*first, *(place + len(photos.train) for place in first)]
    assert len(problem.rows) == 2 * len(photos.train)
    assert problem.smoothing == 0.1
    assert problem.row_weights is not None
    sums = torch.zeros(4).double().index_add(0, problem.labels, problem.row_weights)
    assert torch.allclose(sums, torch.ones(4).double())
    assert state.phase1_fit is not None
    assert state.phase1_fit.chosen_by == "a part of the training images"


def test_an_embedding_that_is_no_number_names_its_image(
    photos: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Rows.__getitem__

    def broken(rows: Rows, indices: list[int]) -> torch.Tensor:
        found = honest(rows, indices)
        found[2] = float("nan")
        return found

    monkeypatch.setattr(Rows, "__getitem__", broken)
    name = training_images(photos, SOLVED).fitted.paths[2]
    with pytest.raises(Diverged, match=f"the embedding of {name} is not finite"):
        told(photos, SOLVED, tmp_path)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ("phase2: {solver: lbfgs}", "only phase 1"),
        ("phase1: {solver: lbfgs, optimizer: adamw}", "leave out classifier_rank and optimizer"),
        ("phase1: {solver: lbfgs}\npooling: {system: lrbp}\nclassifier_rank: 2", "fits a linear classifier"),
        ("phase1: {solver: newton}", "phase1.solver: Input should be 'sgd' or 'lbfgs'"),
    ],
)
def test_recipes_that_it_cannot_follow_are_refused(fields: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(fields)
    with pytest.raises(RecipeError, match=sentence):
        load_recipe(path)


def test_a_recipe_without_it_is_written_as_before(tmp_path: Path) -> None:
    assert "solver" not in Recipe().yaml()
    path = tmp_path / "recipe.yaml"
    path.write_text("phase1: {solver: lbfgs}")
    assert load_recipe(path).phase1.solver == "lbfgs"
    assert load_recipe(path).phase1.epochs == 50
    assert "solver: lbfgs" in load_recipe(path).yaml()
