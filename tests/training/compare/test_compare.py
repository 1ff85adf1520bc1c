"""`rankone compare` from images to recipe: its figures against the embeddings themselves, resumption, refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rankone.__main__ import run as command
from rankone.model import catalogue
from rankone.model.backbone import BACKBONES, Backbone
from rankone.model.errors import Interrupted
from rankone.training.compare import CompareError, Plan, Ranking, compare, plan_of
from rankone.training.compare import measure as measuring
from rankone.training.compare import plan as planning
from rankone.training.compare import run as running
from rankone.training.data import DataError, DataSet, Split
from rankone.training.embeddings import embed
from rankone.training.encoder import Encoder
from rankone.training.metrics import Floats, retrieval_scores
from rankone.training.processes import Resources
from rankone.training.recipe import PoolingRecipe, Recipe, load_recipe
from rankone.training.short import Examples, learn
from tests.light import one_layer
from tests.pages import ROOT, commands, write_flowers
from tests.training.helpers import CPU, StopAfter

pytestmark = pytest.mark.usefixtures("narrow", "_undrawn")

SMALL = Recipe(weights="random", size=32)
"""4 x 4 locations."""
SYSTEMS = ("sum", "cbp-run", "isqrt-cov")


@pytest.fixture(scope="module")
def plan(photos: DataSet) -> Plan:
    return plan_of(photos, SMALL, systems=SYSTEMS)


def sixteen_channels() -> Backbone:
    return Backbone(nn.Sequential(nn.Conv2d(3, 16, 8, stride=8), nn.ReLU()), channels=16, stride=8)


@pytest.fixture(scope="module")
def narrow() -> Iterator[None]:
    """Within the module, `vgg16` is a single layer of 16 channels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "vgg16", sixteen_channels)
        yield


@pytest.fixture(scope="module")
def home(narrow: None, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compare")
    compare(plan, path)
    return path


def read(home: Path) -> Ranking:
    return Ranking.model_validate_json((home / "compare.json").read_bytes())


def embedded(system: str, split: Split) -> Floats:
    """As the network of a bundle would embed them."""
    network = SMALL.model_copy(update={"pooling": PoolingRecipe(system=system)}).build_network(None).eval()
    found = embed(Encoder(network, CPU), split, SMALL.preprocessing, Resources(), "")
    return torch.cat([network.embedding_of(rows) for rows in found]).numpy()


@pytest.mark.parametrize("system", SYSTEMS)
def test_recall_is_that_of_the_embeddings_themselves_on_other_classes(home: Path, photos: DataSet, system: str) -> None:
    (row,) = (place.row for place in read(home).places if place.row.pooling == system)
    train, test = embedded(system, photos.train), embedded(system, photos.test)
    labels, truth = np.array(photos.train.labels), np.array(photos.test.labels)
    halves = learn(Examples(train, np.arange(len(train)), labels, "")).halves
    assert halves is not None
    right = {"full": 0.0, "short": 0.0}
    for side, half in enumerate(halves):
        place = np.flatnonzero(truth % 2 != side)
        right["full"] += retrieval_scores(test[place], truth[place])["recall_at_1"].sum()
        short = half(test[place])[:, : row.short_dim]
        short /= np.linalg.norm(short, axis=1, keepdims=True)
        right["short"] += retrieval_scores(short, truth[place])["recall_at_1"].sum()
    assert row.short is not None
    assert row.is_disjoint
    assert row.full.mean == right["full"] / len(truth)
    assert row.short.mean == pytest.approx(right["short"] / len(truth), abs=1 / len(truth))  # a near tie may turn
    assert (row.dim, row.bytes) == (test.shape[1], 2 * test.shape[1])
    assert row.full.outcomes.count("1") == round(row.full.mean * len(truth))
    assert min(row.backbone_ms, row.pooling_ms) > 0


def test_accuracy_is_that_of_a_classifier_on_the_embeddings(home: Path, photos: DataSet) -> None:
    """A ridge of the same strength on sum pooling, solved by torch's own L-BFGS on the numbers as they are."""
    (row,) = (place.row for place in read(home).places if place.row.pooling == "sum")
    train = torch.tensor(embedded("sum", photos.train)).double()
    labels = torch.tensor(photos.train.labels)
    weight, bias = torch.zeros(4, 16).double().requires_grad_(), torch.zeros(4).double().requires_grad_()
    decay = row.fit.final.strength * float((train - train.mean(0)).square().sum(1).mean())
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=3000, tolerance_grad=1e-8, line_search_fn="strong_wolfe")

    def objective() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(train @ weight.T + bias, labels) + decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(objective)
    logits = torch.tensor(embedded("sum", photos.test)).double() @ weight.T + bias
    right = (logits.argmax(1) == torch.tensor(photos.test.labels)).tolist()
    ours = [one == "1" for one in row.accuracy.outcomes]
    assert sum(one != other for one, other in zip(ours, right, strict=True)) <= 1
    assert row.fit.final.converged


def test_the_files_and_a_recipe_that_train_takes(home: Path, plan: Plan) -> None:
    found = read(home)
    assert {place.row.pooling for place in found.places} == set(SYSTEMS)
    assert found.recommended is not None
    chosen = load_recipe(home / "recipe.yaml")
    assert chosen == SMALL.model_copy(
        update={"pooling": PoolingRecipe(system=found.places[found.recommended].row.pooling)}
    )
    for name in ("compare.md", "compare.html", "report/quality.png"):
        assert (home / name).stat().st_size > 1000
    assert not (home / "work").exists()
    assert any("the weights are random" in note for note in found.notes)


def test_a_second_comparison_measures_only_what_is_new(
    home: Path, photos: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def watched(recipe: Recipe, *rest: object) -> measuring.Row:
        asked.append(recipe.pooling.name)
        return measuring.measure(recipe, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(running, "measure", watched)
    shutil.copytree(home, tmp_path / "copy")
    before, copy = read(home), tmp_path / "copy"
    assert compare(plan_of(photos, SMALL, systems=SYSTEMS), copy) == before
    assert asked == []
    compare(plan_of(photos, SMALL, systems=("sum", "max")), copy)
    assert asked == ["max"]
    less = replace(photos, train=photos.train.at(range(20)))
    compare(plan_of(less, SMALL, systems=("sum",)), copy)
    assert asked == ["max", "sum"]  # of other images


@pytest.mark.parametrize("checks", [1, 26, 32])
def test_an_interrupted_comparison_goes_on(
    home: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checks: int
) -> None:
    """While images are checked, features computed, rows measured."""

    @contextmanager
    def stopping() -> Iterator[StopAfter]:
        yield StopAfter(checks)

    with monkeypatch.context() as patch:
        patch.setattr(running, "stop_on_signal", stopping)
        with pytest.raises(Interrupted):
            compare(plan, tmp_path)
    assert not (tmp_path / "compare.json").exists()
    result = compare(plan, tmp_path)
    expected = {place.row.pooling: place.row for place in read(home).places}
    for place in result.places:
        other = expected[place.row.pooling]
        assert place.row.accuracy == other.accuracy
        assert (place.row.full, place.row.short) == (other.full, other.short)


def test_poolings_that_do_not_fit_are_named_and_left_out(photos: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = one_layer()
    everything = plan_of(photos, SMALL)
    chosen, unfit = everything.poolings(SMALL, backbone)
    assert (len(chosen), unfit) == (len(catalogue.SYSTEMS), ())
    monkeypatch.setattr(planning, "MAX_NUMBERS", 20_000)
    chosen, unfit = everything.poolings(SMALL, backbone)
    assert "bcnn" not in chosen
    assert any(sentence.startswith("bcnn on vgg16 has 262,144 numbers") for sentence in unfit)
    named, _ = plan_of(photos, SMALL, systems=("bcnn",)).poolings(SMALL, backbone)
    assert list(named) == ["bcnn"]
    backbone.channels = 64
    chosen, unfit = everything.poolings(SMALL, backbone)
    assert any("lrbp does not fit vgg16: rank must lie in [1, 64]" in sentence for sentence in unfit)
    with pytest.raises(CompareError, match="lrbp does not fit"):
        plan_of(photos, SMALL, systems=("lrbp",)).poolings(SMALL, backbone)


def test_weights_go_to_backbones_in_order_and_colours_to_those_that_expect_them(photos: DataSet) -> None:
    plan = plan_of(photos, SMALL, backbones=("vgg16", "timm/test_vit"), weights=("random", "imagenet"), images=2)
    first, second = plan.recipes
    assert (first.weights, second.weights, second.backbone) == ("random", "imagenet", "timm/test_vit")
    assert (first.mean, second.mean) == (SMALL.mean, (0.5, 0.5, 0.5))
    assert (len(plan.data.train), len(plan.data.test)) == (8, 8)
    both = plan_of(photos, SMALL, backbones=("vgg16", "vgg19"), weights=("file",))
    assert [recipe.weights for recipe in both.recipes] == ["file", "file"]


def test_what_makes_no_sense_is_refused(photos: DataSet, tmp_path: Path, plan: Plan) -> None:
    with pytest.raises(CompareError, match="there is no pooling cbp; there are: max, sum"):
        plan_of(photos, SMALL, systems=("cbp",))
    with pytest.raises(CompareError, match="2 weights do not go together with 1 backbones"):
        plan_of(photos, SMALL, weights=("random", "imagenet"))
    with pytest.raises(CompareError, match="size: Input should be greater than or equal to 16"):
        plan_of(photos, SMALL, size=8)
    with pytest.raises(DataError, match="at least one image"):
        plan_of(photos, SMALL, images=-1)
    with pytest.raises(CompareError, match="a single class"):
        plan_of(replace(photos, classes=("one",)), SMALL)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nno more")
    bad = replace(photos, train=photos.train + Split((broken,), (0,)))
    with pytest.raises(DataError, match=r"1 of 41 images cannot be used.*\n.*broken\.png"):
        compare(replace(plan, data=bad), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    skipping = compare(replace(plan, data=bad, systems=("sum",)), tmp_path / "out", skip_bad=True)
    assert any("broken.png" in note for note in skipping.notes)
    (row,) = (tmp_path / "out" / "rows").iterdir()
    row.write_text("{}")
    with pytest.raises(CompareError, match="remove it and run again"):
        compare(replace(plan, data=bad, systems=("sum",)), tmp_path / "out", skip_bad=True)


def test_two_classes_are_too_few_to_be_divided(photos: DataSet, tmp_path: Path) -> None:
    few = replace(photos, classes=photos.classes[:2], train=photos.train.at(range(12)), test=photos.test.at(range(8)))
    found = compare(plan_of(few, SMALL, systems=("sum",)), tmp_path)
    assert not found.places[0].row.is_disjoint
    assert found.places[0].row.short is not None
    assert any("too few classes" in note for note in found.notes)
    single = replace(few, train=photos.train.at([0, 6]))
    lone = compare(plan_of(single, SMALL, systems=("sum",)), tmp_path)
    assert lone.places[0].row.short is None
    assert "too few images for short ones" in (tmp_path / "compare.md").read_text()


def test_validation_images_choose_the_penalty(photos: DataSet, tmp_path: Path) -> None:
    data = replace(photos, train=photos.train.at(range(1, 24)), validation=photos.train.at([0, 6, 12, 18]))
    (place,) = compare(plan_of(data, SMALL, systems=("sum",)), tmp_path).places
    assert place.row.fit.chosen_by == "the images that select"
    assert place.row.fit.final.validation_error is not None


def test_the_command(
    photos: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(BACKBONES, "vgg19", sixteen_channels)
    monkeypatch.chdir(tmp_path)
    data = str(photos.train.paths[0].parents[2])
    flags = ["--backbone", "vgg16", "--backbone", "vgg19", "--weights", "random", "--system", "sum", "--size", "32"]
    assert command("compare", [data, *flags, "--images", "4", "--device", "cpu", "--rank-by", "full"]) == 0
    printed = capsys.readouterr().out
    assert "measured: vgg19, sum: accuracy 0." in printed
    assert "the weights are random" in printed
    home = tmp_path / "runs" / f"compare-{photos.name}"
    assert (json.loads((home / "compare.json").read_text())["num_train"], read(home).by) == (16, "full")
    assert load_recipe(home / "recipe.yaml").size == 32
    assert command("compare", [data, "--system", "cbp"]) == 2
    assert "there is no pooling cbp" in capsys.readouterr().err
    assert command("compare", ["nowhere"]) == 2
    assert "neither a directory" in capsys.readouterr().err


def test_the_commands_of_the_page(photos_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "resnet18", sixteen_channels)
    for split in ("train", "test"):
        write_flowers(photos_root / split, tmp_path / "flowers" / split, count=4)
    monkeypatch.chdir(tmp_path)
    ((compared, trained),) = commands("docs/compare.md")
    name, *arguments = compared.removeprefix("rankone ").split()
    assert command(name, arguments) == 0
    recipe = Path(trained.split()[-1])
    assert load_recipe(recipe).size == 64
    few = ["--phase1.epochs", "1", "--phase2.epochs", "1", "--device", "cpu"]
    assert command("train", [*trained.removeprefix("rankone train ").split(), *few]) == 0
    assert (tmp_path / "runs" / "best" / "report.html").exists()
    assert len((ROOT / "docs/compare.md").read_text(encoding="utf-8").split()) <= 420
