from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from rankone.model.composition import NORMALIZATIONS, PROJECTIONS, STATISTICS, compose
from rankone.model.normalization import MatrixPower, NewtonSchulz, RankOneUpdate
from rankone.model.projection import LowRank, TensorSketch
from tests.tolerances import RELATIVE, relative_error

MATRICES = [name for name, statistic in STATISTICS.items() if statistic.order == 2]
SMALL = {"tensor-sketch": {"dim": 30}, "random-maclaurin": {"dim": 30}, "low-rank": {"rank": 4}}


@pytest.mark.parametrize("statistic", MATRICES)
def test_every_statistic_goes_with_every_normalization_and_every_projection(statistic: str) -> None:
    features = torch.rand(2, 20, 6)
    for normalization, projection in product(NORMALIZATIONS, (name for name in PROJECTIONS if name != "none")):
        parts = compose(statistic, normalization, {"name": projection, **SMALL.get(projection, {})})
        pooling = parts.build(6).eval()
        out = pooling(features)
        assert out.shape == (2, pooling.out_dim)
        assert torch.allclose(out.norm(dim=1), torch.ones(2), atol=1e-5)
        assert compose(**parts.describe()) == parts
        assert parts.needs_eigendecomposition is normalization.startswith("matrix-")


def test_options_reach_the_layers() -> None:
    pooling = compose(
        "covariance", {"name": "newton-schulz", "iterations": 3}, {"name": "tensor-sketch", "dim": 77, "seed": 9}
    ).build(8)
    assert isinstance(pooling.normalization, NewtonSchulz)
    assert pooling.normalization.iterations == 3
    assert isinstance(pooling.projection, TensorSketch)
    assert torch.equal(pooling.projection.h1, TensorSketch(8, 77, seed=9).h1)
    pooling = compose(
        "moment", {"name": "matrix-power", "power": 0.25, "eps": 1}, {"name": "low-rank", "rank": 4}
    ).build(8)
    assert isinstance(pooling.normalization, MatrixPower)
    assert (pooling.normalization.power, pooling.normalization.eps, pooling.normalization.dim) == (0.25, 1.0, 9)
    assert isinstance(pooling.projection, LowRank)
    assert pooling.projection.weight.shape == (9, 4)


def test_an_option_that_several_parts_have_goes_to_all_of_them() -> None:
    parts = compose(normalization="rank-one-update", projection="tensor-sketch").with_options(seed=5, eta=1)
    assert parts.options == {"eta": 1.0, "iterations": 2, "seed": 5, "resample": False, "dim": 10_000}
    pooling = parts.build(8)
    assert isinstance(pooling.normalization, RankOneUpdate)
    assert torch.equal(pooling.normalization.v0, RankOneUpdate(8, seed=5).v0)


def test_the_root_of_the_features_and_the_element_wise_step_are_switches() -> None:
    features = torch.rand(2, 9, 4)
    plain = compose(elementwise=False).build(4)(features)
    assert torch.allclose(plain, (features.mT @ features / 9).flatten(1), atol=1e-6)
    parts = compose(elementwise=False, root_features=True)
    assert torch.allclose(parts.build(4)(features), (features.sqrt().mT @ features.sqrt() / 9).flatten(1), atol=1e-6)
    assert compose(**parts.describe()) == parts != compose()


def test_the_root_of_half_precision_features_is_taken_in_float32() -> None:
    rounded = torch.rand(2, 3, 4).to(torch.bfloat16)
    pooling = compose("sum", elementwise=False, root_features=True).build(4)
    assert relative_error(pooling(rounded), rounded.double().sqrt().sum(1)) < RELATIVE[torch.float32]


def test_the_root_of_negative_features_keeps_their_sign_and_learns() -> None:
    features = torch.randn(2, 9, 4, dtype=torch.float64, requires_grad=True)
    pooling = compose("sum", elementwise=False, root_features=True).build(4)
    assert torch.allclose(pooling(features), (features.sign() * features.abs().sqrt()).sum(1))
    assert torch.autograd.gradcheck(pooling, features.detach().sign().mul(features.detach().abs() + 1).requires_grad_())


def test_the_slope_of_the_root_of_the_features_is_bounded_over_the_whole_image() -> None:
    """A dark location among bright ones has the bound of the bright ones, not one of its own."""
    features = torch.tensor([[[4.0, 4.0], [1e-6, 0.0]]], requires_grad=True)
    compose("sum", elementwise=False, root_features=True).build(2)(features).sum().backward()
    bound = 1 / (2 * 0.1 * 2**0.5)  # the root mean square of the four roots is sqrt(2)
    assert features.grad is not None
    assert torch.allclose(features.grad, torch.tensor([[[0.25, 0.25], [bound, bound]]]))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"statistic": "gramm"}, "unknown statistic 'gramm'; known: gram, covariance, moment, gaussian, max, sum"),
        ({"normalization": "svd"}, "unknown normalization 'svd'; known: none, rank-one-update, newton-schulz"),
        ({"projection": "fft"}, "unknown projection 'fft'; known: none, flatten"),
        ({"normalization": {"iterations": 5}}, "a part needs a name, got iterations"),
        ({"projection": {}}, "a part needs a name, got nothing"),
        ({"projection": {"name": "flatten", "dim": 5}}, "flatten has no option dim; it has: none at all"),
        ({"projection": {"name": "tensor-sketch", "out_dim": 5}}, "has no option out_dim; it has: dim, seed"),
        ({"normalization": {"name": "newton-schulz", "iterations": 2.5}}, "iterations must be a whole number, got 2.5"),
        (
            {"normalization": {"name": "newton-schulz", "iterations": True}},
            "iterations must be a whole number, got True",
        ),
        ({"normalization": {"name": "rank-one-update", "resample": 1}}, "resample must be true or false, got 1"),
        ({"normalization": {"name": "rank-one-update", "eta": "x"}}, "eta must be a number, got 'x'"),
        ({"projection": "none"}, "statistic gram is a matrix, which needs a projection"),
        ({"statistic": "max", "projection": "flatten"}, "statistic max is a vector, which takes no projection"),
        (
            {"statistic": "sum", "normalization": "newton-schulz"},
            "statistic sum is a vector, which takes no normalization",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compose(**parts)


def test_a_value_out_of_range_is_refused_by_its_layer() -> None:
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 2\], got 3"):
        compose(normalization={"name": "rank-one-update", "eta": 3}).build(8)
