"""Every row of the catalogue through training and export, behind a backbone of a single layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

import rankone.model.backbone
from rankone.model.bundle import ONNX
from rankone.model.catalogue import SYSTEMS
from rankone.model.composition import compose
from rankone.model.network import build_network
from rankone.model.preprocessing import preprocess
from rankone.model.projection import LowRank
from rankone.training import pipeline
from rankone.training.data import DataSet
from rankone.training.export import ExportError, check_exportable, write_bundle
from rankone.training.forms import FORMS
from rankone.training.recipe import Phase, PoolingRecipe, Recipe
from tests.conftest import RECIPE
from tests.light import one_layer
from tests.training.test_export import ALONE

EXPORTED = sorted(name for name, system in SYSTEMS.items() if not system.composition.needs_eigendecomposition)
REFUSED = {
    "improved-bcnn": "train bcnn-ns, or the same parts with normalization newton-schulz in place of matrix-power",
    "o2p": "train bcnn-ns, or the same parts with normalization newton-schulz in place of matrix-logarithm",
    "mpn-cov": "train isqrt-cov, or",
    "g2denet": "train isqrt-cov, or",
    "monet-2": "train cbp-run, or",
    "monet": "train cbp-run, or",
}


def small(system: str) -> PoolingRecipe:
    """The system with sketches of 1,000 numbers in place of 10,000; the default system stays as it is."""
    has_sketch = "dim" in SYSTEMS[system].composition.options and system != "cbp-run"
    return PoolingRecipe(system=system, options={"dim": 1_000} if has_sketch else {})


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Callable[[PoolingRecipe], Recipe]:
    monkeypatch.setitem(rankone.model.backbone.BACKBONES, "vgg16", one_layer)
    quick = {
        "phase1": Phase(epochs=6, learning_rate=1, batch_size=8),
        "phase2": Phase(epochs=1, learning_rate=3e-4, batch_size=8),
    }
    return lambda pooling: RECIPE.model_copy(update={**quick, "flip": False, "validation": 0.0, "pooling": pooling})


@pytest.fixture(scope="module")
def pixels(photos: DataSet) -> npt.NDArray[np.float32]:
    return np.stack([preprocess(path.read_bytes(), RECIPE.preprocessing) for path in photos.test.paths])


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_trains_end_to_end(
    system: str,
    recipe: Callable[[PoolingRecipe], Recipe],
    photos: DataSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With 128 channels: matrices of 512 x 512 would take four minutes, and those of the slow exports below have that size."""
    monkeypatch.setitem(rankone.model.backbone.BACKBONES, "vgg16", partial(one_layer, 128))
    state = pipeline.train(photos, recipe(small(system)), tmp_path)
    losses = [epoch.loss for epoch in state.history]
    assert np.isfinite(losses).all()
    assert losses[5] < losses[0]
    start = build_network(weights="random", seed=RECIPE.seed).backbone.state_dict()
    end = pipeline.trained(tmp_path, photos)[1].backbone.state_dict()
    assert all(not torch.equal(value, start[name]) and value.isfinite().all() for name, value in end.items())


@pytest.mark.parametrize("channels", [128, pytest.param(512, marks=pytest.mark.slow)])
@pytest.mark.parametrize("system", EXPORTED)
def test_every_system_without_an_eigendecomposition_exports(
    system: str,
    channels: int,
    recipe: Callable[[PoolingRecipe], Recipe],
    pixels: npt.NDArray[np.float32],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bundle is only written where both forms agree with float64; ONNX then again and again: a race would show."""
    monkeypatch.setitem(rankone.model.backbone.BACKBONES, "vgg16", partial(one_layer, channels))
    pooling = small(system)
    network = build_network(weights="random", pooling=pooling.composition, num_classes=2)
    nn.init.normal_(network.classifier.weight)  # type: ignore[union-attr, arg-type]
    written = write_bundle(
        network, recipe(pooling), pixels[:7], tmp_path / "bundle", replace(ALONE, classes=("a", "b"))
    )
    assert written.manifest.dim == network.pooling.out_dim
    assert compose(**written.manifest.pooling.parts) == pooling.composition
    run = FORMS[ONNX].load(written.file(ONNX), written.manifest)
    expected = run(pixels[:7]).embedding
    assert np.allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-4)
    for _ in range(5):
        assert np.allclose(run(pixels[:7]).embedding, expected, atol=1e-6)


def test_a_pooling_by_hand_exports(
    recipe: Callable[[PoolingRecipe], Recipe], pixels: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    pooling = PoolingRecipe(
        statistic="moment",
        normalization={"name": "newton-schulz", "iterations": 2},
        projection={"name": "random-maclaurin", "dim": 300},
        root_features=True,
    )
    network = build_network(weights="random", pooling=pooling.composition)
    written = write_bundle(network, recipe(pooling), pixels[:7], tmp_path / "bundle", ALONE)
    assert written.manifest.pooling.system == "moment-newton-schulz-random-maclaurin"
    assert written.manifest.pooling.parts["root_features"] is True


@pytest.mark.parametrize("system", sorted(set(SYSTEMS) - set(EXPORTED)))
def test_an_eigendecomposition_is_refused_with_what_to_train_instead(
    system: str, recipe: Callable[[PoolingRecipe], Recipe], pixels: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    pooling = PoolingRecipe(system=system)
    network = build_network(weights="random", pooling=pooling.composition)
    with pytest.raises(ExportError, match=f"{system} needs an eigendecomposition, .*; {REFUSED[system]}"):
        write_bundle(network, recipe(pooling), pixels, tmp_path / "bundle", ALONE)
    assert list(tmp_path.iterdir()) == []
    sibling = SYSTEMS[system].sibling
    assert sibling in EXPORTED


def test_by_hand_an_eigendecomposition_is_refused_too() -> None:
    with pytest.raises(ExportError, match="gram-matrix-power-upper-triangle needs .*; train the same parts with"):
        check_exportable(PoolingRecipe(normalization="matrix-power", projection="upper-triangle"))


@pytest.mark.usefixtures("_undrawn")
def test_lrbps_own_classifier_trains_and_exports(
    recipe: Callable[[PoolingRecipe], Recipe], photos: DataSet, pixels: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    chosen = recipe(PoolingRecipe(system="lrbp", options={"pca": True})).model_copy(update={"classifier_rank": 4})
    state = pipeline.train(photos, chosen, tmp_path / "run")
    assert state.history[5].loss < state.history[0].loss
    report = pipeline.evaluate(tmp_path / "run", photos)
    written = pipeline.export(tmp_path / "run", photos, tmp_path / "bundle")
    assert written.manifest.metrics == report.metrics
    assert 0 <= report.metrics["top1"] <= 1
    wrong = replace(photos, test=replace(photos.test, labels=tuple((label + 1) % 4 for label in photos.test.labels)))
    pipeline.evaluate(tmp_path / "run", wrong)
    mistakes, taken, true = (
        len(list(tmp_path.glob(f"run/report/confused-*-{kind}.png"))) for kind in ("mistake", "taken", "true")
    )
    assert mistakes == taken == true > 0, "the evidence in every mistake, for both classes"


def test_a_low_rank_projection_starts_at_the_principal_axes_of_the_training_images(
    recipe: Callable[[PoolingRecipe], Recipe], photos: DataSet, tmp_path: Path
) -> None:
    chosen = recipe(PoolingRecipe(system="lrbp", options={"pca": True, "rank": 5}))
    chosen = chosen.model_copy(update={"phase2": Phase(epochs=0, learning_rate=1)})
    pipeline.train(photos, chosen, tmp_path)
    network = pipeline.trained(tmp_path, photos)[1].eval()
    images = torch.stack(
        [torch.from_numpy(preprocess(p.read_bytes(), chosen.preprocessing)) for p in photos.train.paths]
    )
    with torch.no_grad():
        mean = network.pooling.statistic(network.backbone(images)).mean(0).double()
    assert isinstance(network.pooling.projection, LowRank)
    found = network.pooling.projection.weight.double()
    largest = torch.linalg.eigvalsh(mean).flip(0)[:5]
    assert torch.allclose(torch.diagonal(found.T @ mean @ found), largest, rtol=1e-4)
