from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from rankone.model.bundle import Bundle
from rankone.model.catalogue import SYSTEMS
from rankone.model.classifier import LowRankClassifier
from rankone.model.composition import compose
from rankone.model.engine import Engine, Outputs, load_engine
from rankone.model.evidence import AdditivePooling, NoEvidence, why_not
from rankone.model.explanation import Explainer, check_evidence
from rankone.model.network import Network, open_network
from rankone.model.pooling import Pooling
from rankone.model.preprocessing import preprocess
from rankone.training.export import Description, write_bundle
from rankone.training.recipe import PoolingRecipe, Recipe
from tests.light import one_layer
from tests.oracles import run_on_features, tensor_sketch_by_fft

N, D = 9, 12
SUMS = [
    *(compose(kind, "none", part) for kind in ("gram", "covariance") for part in ("flatten", "upper-triangle")),
    *(compose("gram", "rank-one-update", {"name": part, "dim": 40}) for part in ("tensor-sketch", "random-maclaurin")),
    compose("moment", "rank-one-update", {"name": "tensor-sketch", "dim": 40}, root_features=True),
    compose("gaussian", {"name": "rank-one-update", "eta": 0.3, "iterations": 3}, "flatten", root_features=True),
    compose("gram", "rank-one-update", {"name": "low-rank", "rank": 5}),
    compose("covariance", "rank-one-update", "upper-triangle", elementwise=False),
    compose("sum"),
]


def features(seed: int = 0) -> Tensor:
    """As they come from a ReLU, (1, N, D)."""
    return torch.randn(1, N, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).relu()


def tables(pooling: Pooling) -> dict[str, npt.NDArray[Any]]:
    return {name: table.numpy() for name, table in pooling.state_dict().items()}


def scaled(features_1ND: Tensor) -> npt.NDArray[np.float64]:
    return np.asarray(features_1ND[0] * N**-0.5)


def test_shares_are_those_of_algorithm_1_location_by_location() -> None:
    """The sketch of every location by the paper's FFT, behind RUN as it prints it, times the D of their sum."""
    composition = compose("gram", "rank-one-update", {"name": "tensor-sketch", "dim": 40})
    pooling = composition.build(D)
    split = AdditivePooling(composition.describe(), tables(pooling))
    target = torch.randn(40, dtype=torch.float64)

    rows = run_on_features(features()[0] * N**-0.5, pooling.normalization.v0, 0.6, 2)  # type: ignore[arg-type]
    ts = pooling.projection
    terms = torch.stack([tensor_sketch_by_fft(row[None], (ts.h1, ts.h2), (ts.s1, ts.s2), 40) for row in rows])  # type: ignore[arg-type]
    z = terms.sum(0)
    scale = torch.where(z == 0, 0, 1 / (z.abs().sqrt() * z.abs().sum().sqrt()))
    expected = terms @ (scale * target)

    found = split.located(scaled(features())).shares(target.numpy())
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("composition", SUMS, ids=lambda it: f"{it.statistic.name}-{it.projection.name}")
def test_every_pooling_that_is_a_sum_is_split(composition: Any) -> None:
    """The vectors are the layers' own, and so are the terms: each is the projection of one location's outer product."""
    pooling = composition.build(D).double()
    split = AdditivePooling(composition.describe(), tables(pooling))
    located = split.located(scaled(features()))
    z = pooling.pool(features())[0].detach()
    np.testing.assert_allclose(located.pooled, z.numpy(), rtol=1e-9, atol=1e-12)
    embedding = torch.nn.functional.normalize(pooling.finish(z[None]))[0]
    np.testing.assert_allclose(located.embedding, embedding.numpy(), rtol=1e-6, atol=1e-9)

    target = torch.randn(len(z), dtype=torch.float64)
    shares = located.shares(target.numpy())
    assert shares.sum() == pytest.approx(float(target @ embedding), rel=1e-6)
    rows = torch.from_numpy(located.rows)
    terms = rows if split.parts["statistic"]["name"] == "sum" else pooling.projection(rows[:, :, None] * rows[:, None])
    expected = terms @ (target * torch.from_numpy(located.scale))
    np.testing.assert_allclose(shares, expected.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_a_black_image_has_no_evidence_and_no_nan() -> None:
    composition = compose("gram", "rank-one-update", {"name": "tensor-sketch", "dim": 40})
    located = AdditivePooling(composition.describe(), tables(composition.build(D))).located(np.zeros((N, D)))
    assert not located.shares(np.ones(40)).any()
    assert not located.embedding.any()


def test_systems_that_are_no_sum_are_refused_with_the_reason() -> None:
    refused = {name for name, system in SYSTEMS.items() if why_not(system.composition.describe()) is not None}
    summed = {"sum", "bcnn", "cbp-ts", "cbp-rm", "lrbp", "bp-run", "cbp-run", "cbp-run-mild", "cbp-run-rm"}
    assert set(SYSTEMS) - refused == summed
    with pytest.raises(NoEvidence, match="newton-schulz acts on the matrix of all locations together.*rank-one-update"):
        AdditivePooling(SYSTEMS["bcnn-ns"].composition.describe(), {})
    with pytest.raises(NoEvidence, match="max pooling keeps one location"):
        AdditivePooling(SYSTEMS["max"].composition.describe(), {})


@pytest.fixture(scope="module", params=["onnx", "torchscript", "export"])
def engine(bundle: Bundle, request: pytest.FixtureRequest) -> Iterator[Engine]:
    engine = load_engine(bundle, request.param, "cpu", 1)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def pixels(bundle: Bundle, images: list[bytes]) -> npt.NDArray[np.float32]:
    return np.stack([preprocess(image, bundle.manifest.preprocessing) for image in images[::3]])


def test_an_engine_gives_features_only_if_it_is_asked(engine: Engine, pixels: npt.NDArray[np.float32]) -> None:
    assert engine.run(pixels[:2]).features is None
    found = engine.run(pixels[:2], features=True)
    assert found.features is not None
    assert found.features.shape == (2, 16, 512)
    np.testing.assert_array_equal(found.embedding, engine.run(pixels[:2]).embedding)


def test_shares_and_rest_add_up_to_what_the_engine_answers(
    engine: Engine, bundle: Bundle, pixels: npt.NDArray[np.float32]
) -> None:
    """Class, item by its full vector, and items by short ones: every score is the engine's own, within 1e-4."""
    outputs, explainer = engine.run(pixels, features=True), Explainer.of(bundle)
    assert outputs.features is not None
    assert outputs.logits is not None
    assert outputs.short is not None
    other = outputs.at(0)
    for row, one in enumerate(outputs.features):
        for label in range(4):
            evidence = explainer.of_class(one, label)
            assert evidence.shares.shape == (4, 4)
            assert evidence.score == pytest.approx(float(outputs.logits[row, label]), abs=1e-4)
        cosine = float(outputs.embedding[row] @ other.embedding)
        assert explainer.of_vector(one, other.embedding).score == pytest.approx(cosine, abs=1e-4)
        for length in (3, outputs.short.shape[1]):
            target, query = (_unit(side[:length]) for side in (outputs.short[0], outputs.short[row]))
            assert explainer.of_vector(one, target).score == pytest.approx(float(query @ target), abs=1e-4)


def test_a_short_match_is_split_like_its_full_equal(bundle: Bundle, pixels: npt.NDArray[np.float32]) -> None:
    """Against the network's own map in float64, each location in turn: the shares of `A^T t` over the length."""
    network = open_network(bundle).double()
    with torch.no_grad():
        outputs = network.outputs(torch.from_numpy(pixels[:2]).double(), features=True)
        assert network.short is not None
        matrix, mean = network.short.matrix[:7], network.short.mean
        moved = matrix @ (outputs["embedding"][1] - mean)
        target = torch.nn.functional.normalize(torch.randn(7, dtype=torch.float64), dim=0)
        lifted = matrix.T @ target / moved.norm()
    explainer, one = Explainer.of(bundle), outputs["features"][1].numpy()
    found = explainer.of_vector(one, target.numpy())
    np.testing.assert_allclose(found.shares, explainer.of_vector(one, lifted.numpy()).shares, rtol=1e-5, atol=1e-9)
    assert found.rest == pytest.approx(-float(lifted @ mean), rel=1e-5)
    assert found.score == pytest.approx(float(target @ moved / moved.norm()), abs=1e-6)


def test_the_low_rank_classifier_is_split_too(pixels: npt.NDArray[np.float32], tmp_path: Any) -> None:
    """It reads the projected matrix, scaled to length 1, and not the embedding."""
    written = exported(compose(projection={"name": "low-rank", "rank": 6}), tmp_path, pixels, low_rank=True)
    outputs = run(written, pixels)
    assert outputs.features is not None
    assert outputs.logits is not None
    score = Explainer.of(written).of_class(outputs.features[1], 2).score
    assert score == pytest.approx(float(outputs.logits[1, 2]), abs=1e-4)


def test_a_bundle_without_a_split_gives_out_no_features(pixels: npt.NDArray[np.float32], tmp_path: Any) -> None:
    written = exported(SYSTEMS["max"].composition, tmp_path, pixels)
    assert written.manifest.evidence is None
    assert run(written, pixels).features is None
    with pytest.raises(NoEvidence, match="one 1 has no evidence: max pooling"):
        Explainer.of(written)


def test_a_bundle_of_before_says_to_export_it_again(bundle: Bundle) -> None:
    old = bundle.model_copy(update={"manifest": bundle.manifest.model_copy(update={"evidence": None})})
    with pytest.raises(NoEvidence, match=r"exported before there was evidence.*rankone export"):
        check_evidence(old)


def exported(composition: Any, path: Any, pixels: npt.NDArray[np.float32], *, low_rank: bool = False) -> Bundle:
    pooling = composition.build(512)
    classifier = LowRankClassifier(6, 4, 2) if low_rank else torch.nn.Linear(pooling.out_dim, 4)
    recipe = Recipe(
        weights="random",
        size=64,
        pooling=PoolingRecipe.model_validate({**composition.describe(), "statistic": composition.statistic.name}),
    )
    described = Description(name="one", version="1", classes=tuple("abcd"), metrics={}, dataset=None)
    return write_bundle(
        Network(one_layer(), pooling, classifier), recipe, np.repeat(pixels, 2, 0)[:7], path / "b", described
    )


def run(bundle: Bundle, pixels: npt.NDArray[np.float32]) -> Outputs:
    engine = load_engine(bundle, "onnx", "cpu", 1)
    try:
        return engine.run(pixels, features=True)
    finally:
        engine.close()


def _unit(vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(vector / np.linalg.norm(vector), np.float32)
