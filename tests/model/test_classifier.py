from __future__ import annotations

import pytest
import torch

from model.classifier import LowRankClassifier
from tests.oracles import low_rank_scores
from tests.tolerances import RELATIVE, relative_error


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("locations", [20, 3])
def test_both_forms_are_the_formula(dtype: torch.dtype, locations: int) -> None:
    layer = LowRankClassifier(6, 3, rank=4, seed=2).double()
    torch.nn.init.normal_(layer.bias)
    features = torch.randn(5, locations, 6, dtype=torch.float64)
    expected = torch.stack([low_rank_scores(one, layer.positive, layer.negative, layer.bias) for one in features])
    layer.to(dtype)
    assert relative_error(layer.features(features.to(dtype)), expected) < RELATIVE[dtype]
    assert relative_error(layer((features.mT @ features).flatten(1).to(dtype)), expected) < RELATIVE[dtype]


def test_the_gradient_is_right_and_not_zero_at_the_start() -> None:
    layer = LowRankClassifier(4, 2, rank=2).double()
    features = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer.features, features)
    assert torch.autograd.gradcheck(lambda f: layer((f.mT @ f).flatten(1)), features)
    layer.features(features.detach()).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_it_never_holds_more_than_rank_numbers_a_direction() -> None:
    layer = LowRankClassifier(100, 14)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 14 * (100 * 8 + 1)
    again = LowRankClassifier(100, 14)
    assert torch.equal(layer.positive, again.positive)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_a_rank_that_cannot_be_halved_is_refused(rank: int) -> None:
    with pytest.raises(ValueError, match=f"rank of the classifier must be even and at least 2, got {rank}"):
        LowRankClassifier(5, 2, rank)


def test_wrong_shapes_are_refused() -> None:
    layer = LowRankClassifier(5, 2)
    with pytest.raises(ValueError, match=r"flattened matrices \(batch, 25\), got shape \(2, 24\)"):
        layer(torch.zeros(2, 24))
    with pytest.raises(ValueError, match=r"\(batch, locations, 5\), got \(2, 9, 6\)"):
        layer.features(torch.zeros(2, 9, 6))
