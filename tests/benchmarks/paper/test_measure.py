"""What a row trains, and the figures that come of it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.paper.book import Filled, Plan
from benchmarks.paper.features import RememberedFeatures
from benchmarks.paper.measure import Setting, Workshop, singular_values
from benchmarks.paper.plan import Row, Table
from rankone.model.backbone import build_backbone
from rankone.model.network import build_network
from rankone.model.normalization import RankOneUpdate
from rankone.training.data import DataSet
from rankone.training.data.batches import batches
from rankone.training.data.dataset import limited
from rankone.training.processes import StopRequest
from rankone.training.recipe import Phase, PoolingRecipe
from tests.benchmarks.paper.conftest import QUICK, SMALL, fill
from tests.oracles import run_on_features


def test_a_frozen_backbone_that_is_remembered_changes_no_figure(photos: DataSet, tmp_path: Path) -> None:
    """With a phase 2 of a learning rate so small that it changes nothing the backbone is run anew for every batch."""
    frozen = Setting.of(SMALL, SMALL.rows[1], QUICK, photos, 0, fast=False)
    phases = {"phase2": Phase(epochs=1, learning_rate=1e-30)}
    moving = replace(frozen, recipe=frozen.recipe.model_copy(update=phases))
    workshop = Workshop(tmp_path, StopRequest())
    metrics = [workshop.measure(setting, "", {}).metrics for setting in (frozen, moving, frozen)]
    assert metrics[0] == metrics[1] == metrics[2]


def test_a_backbone_that_is_trained_is_not_remembered(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, StopRequest())
    moving = QUICK.model_copy(update={"phase2": Phase(epochs=1, learning_rate=1e-3)})
    assert not isinstance(workshop._network(moving, 4).backbone, RememberedFeatures)
    remembered = workshop._network(QUICK, 4).backbone
    assert isinstance(remembered, RememberedFeatures)
    assert workshop._network(QUICK, 4).backbone is remembered


def test_remembered_features_are_those_of_the_backbone_within_their_limit() -> None:
    backbone = build_backbone(weights="random").eval()
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = backbone(images)
    one_image = expected[0].numel() * 4
    for limit in (0, 2 * one_image, 1 << 30):
        remembered = RememberedFeatures(backbone, max_bytes=limit)
        assert torch.allclose(remembered(images), expected, atol=1e-4)
        assert torch.allclose(remembered(images.flip(0)), expected.flip(0), atol=1e-4)
        assert len(remembered._kept) == min(limit // one_image, 4)
    assert remembered.state_dict().keys() == backbone.state_dict().keys()


def test_every_seed_has_a_backbone_of_its_own(photos: DataSet, tmp_path: Path, filled: Filled) -> None:
    """Also where the one of the seed before is remembered."""
    setting = Setting.of(SMALL, SMALL.rows[1], QUICK, photos, 1, fast=False)
    alone = Workshop(tmp_path, StopRequest()).measure(setting, "", {})
    assert alone.metrics == filled.measured["0.6"][1].metrics
    assert alone.history == filled.measured["0.6"][1].history


def test_settings_differ_by_everything_that_changes_a_figure(photos: DataSet) -> None:
    def key(row: int = 0, seed: int = 0, fast: bool = False, table: Table = SMALL, data: DataSet = photos) -> str:
        return Setting.of(table, table.rows[row], QUICK, data, seed, fast=fast).key

    longer = replace(SMALL, fast={"phase1": {"epochs": 4}})
    fewer = replace(photos, train=limited(photos.train, 2))
    keys = [
        key(),
        key(row=1),
        key(seed=1),
        key(table=longer, fast=True),
        key(data=fewer),
        key(table=replace(SMALL, kind="ratio")),
    ]
    assert len(set(keys)) == len(keys)
    assert key() == key(fast=True) == key(table=longer)
    assert key(row=1).startswith("cbp-run-dim-100-seed-0-")


def test_a_seed_draws_the_weights_and_the_tables_of_the_pooling(photos: DataSet) -> None:
    recipe = Setting.of(SMALL, SMALL.rows[0], QUICK, photos, 7, fast=False).recipe
    assert recipe.seed == recipe.pooling.composition.options["seed"] == 7
    plain = Table(title="", rows=(Row(label="", pooling=PoolingRecipe(system="bcnn")),))
    assert Setting.of(plain, plain.rows[0], QUICK, photos, 7, fast=False).recipe.pooling.options == {}


def test_nothing_of_the_recipes_own_pooling_is_left_in_a_row(photos: DataSet) -> None:
    recipe = QUICK.model_copy(update={"pooling": PoolingRecipe(system="bcnn-ns", options={"iterations": 7})})
    pooling = Setting.of(SMALL, SMALL.rows[0], recipe, photos, 0, fast=False).recipe.pooling
    assert pooling == PoolingRecipe(options={"dim": 100, "eta": 0, "seed": 0})


def test_singular_values_are_those_of_the_scaled_features_before_and_after_run(photos: DataSet) -> None:
    few = replace(photos, test=limited(photos.test, 1))
    network = build_network(weights="random")
    found = singular_values(network, QUICK, few)
    assert len(found) == len(few.test)
    images = next(batches(few.test, QUICK.preprocessing, [list(range(len(few.test)))]))
    v0 = RankOneUpdate(512, seed=QUICK.seed).v0
    for values, features in zip(found, network.backbone(images).detach().double(), strict=True):
        scaled = features / len(features) ** 0.5
        for pair, matrix in ((values[:2], scaled), (values[2:], run_on_features(scaled, v0, 0.6, 2))):
            expected = torch.linalg.eigvalsh(matrix @ matrix.T).flip(0)[:2].clamp_min(0).sqrt()
            assert torch.allclose(torch.tensor(pair, dtype=torch.float64), expected, rtol=1e-5)


def test_a_mean_ratio_leaves_out_images_without_a_second_singular_value(filled: Filled) -> None:
    one = filled.measured["0"][0]
    values = [(6.0, 3.0, 3.0, 3.0), (8.0, 2.0, 4.0, 2.0), (5.0, 0.0, 2.0, 0.0)]
    several = one.model_copy(update={"singular_values": values})
    assert (several.mean_ratio, several.mean_ratio_after) == (3.0, 1.5)
    none = one.model_copy(update={"singular_values": values[2:]})
    assert math.isnan(none.mean_ratio)
    assert math.isnan(none.mean_ratio_after)


@pytest.mark.gpu
def test_singular_values_of_a_remembered_backbone_on_a_gpu(plan: Plan, tmp_path: Path) -> None:
    """Its features stay where they were computed."""
    filled = fill(tmp_path, replace(plan, device="cuda", seeds=(0,)), name="figure2")
    assert filled.measured["BP + RUN"][0].mean_ratio > 1
