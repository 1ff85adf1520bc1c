from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rankone.model.composition import STATISTICS
from rankone.model.statistics import Gram, covariance, gaussian, gram, moment
from tests.oracles import bordered, covariance_by_loops, gram_by_loops
from tests.tolerances import RELATIVE, relative_error

REFERENCES: dict[str, Callable[[Tensor], Tensor]] = {
    "gram": gram_by_loops,
    "covariance": covariance_by_loops,
    "moment": lambda features: bordered(features, first=True),
    "gaussian": lambda features: bordered(features, first=False),
    "max": lambda features: torch.stack([torch.stack([c.max() for c in f.double().T]) for f in features]),
    "sum": lambda features: torch.stack([torch.stack([c.sum() for c in f.double().T]) for f in features]),
}


def layer(name: str) -> nn.Module:
    return STATISTICS[name]()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", STATISTICS)
def test_every_statistic_is_its_formula(name: str, dtype: torch.dtype) -> None:
    features = torch.randn(3, 11, 7, dtype=torch.float64)
    found = layer(name)(features.to(dtype))
    assert found.dtype == dtype
    assert found.shape[1] == 7 + STATISTICS[name].added
    assert found.dim() == 1 + STATISTICS[name].order
    assert relative_error(found, REFERENCES[name](features)) < RELATIVE[dtype]


@pytest.mark.parametrize("name", STATISTICS)
def test_every_statistic_has_the_right_gradient(name: str) -> None:
    for locations in (9, 2):
        features = torch.randn(2, locations, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(layer(name), features)


@pytest.mark.parametrize("name", STATISTICS)
def test_every_statistic_answers_a_batch_as_its_images_alone(name: str) -> None:
    features = torch.rand(7, 20, 8)
    features[2] = 0
    alone = torch.cat([layer(name)(image[None]) for image in features])
    assert relative_error(layer(name)(features), alone) < 1e-6


@pytest.mark.parametrize("name", STATISTICS)
def test_every_statistic_of_a_black_image_is_zero_but_for_the_constant_channel(name: str) -> None:
    features = torch.zeros(2, 9, 4, requires_grad=True)
    found = layer(name)(features)
    assert torch.equal(found.double(), REFERENCES[name](features.detach()))
    assert float(found.detach().abs().sum()) == pytest.approx(2.0 * STATISTICS[name].added)
    found.sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("name", STATISTICS)
def test_every_statistic_of_bfloat16_is_that_of_the_rounded_features(name: str) -> None:
    rounded = torch.randn(2, 50, 6).to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(name)(rounded)
    assert relative_error(found, REFERENCES[name](rounded.double())) < RELATIVE[torch.float32]


@pytest.mark.parametrize("name", STATISTICS)
def test_every_statistic_of_half_precision_is_summed_in_float32_also_under_autocast(name: str) -> None:
    """The entries of a bright image pass float16's 65,504."""
    features = torch.full((1, 784, 4), 300.0, dtype=torch.float16)
    expected = REFERENCES[name](features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(name)(features)
    assert found.dtype == torch.float32
    assert relative_error(found, expected) < RELATIVE[torch.float32]


@pytest.mark.parametrize("name", STATISTICS)
def test_every_statistic_refuses_what_is_not_local_features(name: str) -> None:
    with pytest.raises(ValueError, match=r"\(batch, locations, channels\), got shape \(3, 8, 14, 14\)"):
        layer(name)(torch.zeros(3, 8, 14, 14))


def test_covariance_does_not_see_an_offset_however_large() -> None:
    features = torch.rand(2, 50, 6)
    assert relative_error(covariance(features + 1000), covariance(features)) < 1e-3
    assert relative_error(covariance(features.double() + 1e6), covariance(features.double())) < 1e-9


def test_moment_and_gaussian_are_permutations_of_each_other() -> None:
    features = torch.rand(2, 50, 6, dtype=torch.float64)
    order = torch.tensor([6, 0, 1, 2, 3, 4, 5])
    assert relative_error(gaussian(features)[:, order][:, :, order], moment(features)) < 1e-12
    assert relative_error(moment(features)[:, 1:, 1:], gram(features)) < 1e-12


def test_gram_stays_float32_under_autocast() -> None:
    features = torch.randn(2, 50, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = Gram()(features)
    assert torch.equal(found, gram(features))
