from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rankone.model.classifier import LowRankClassifier
from tests.oracles import low_rank_scores
from tests.tolerances import RELATIVE, relative_error


def scored(layer: LowRankClassifier, features: Tensor) -> Tensor:
    """The scores of local features (B, N, m), by their matrix."""
    scores: Tensor = layer((features.mT @ features).flatten(1))
    return scores


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("locations", [20, 3])
def test_it_is_the_formula(dtype: torch.dtype, locations: int) -> None:
    layer = LowRankClassifier(6, 3, rank=4, seed=2).double()
    torch.nn.init.normal_(layer.bias)
    features = torch.randn(5, locations, 6, dtype=torch.float64)
    expected = torch.stack([low_rank_scores(one, layer.positive, layer.negative, layer.bias) for one in features])
    layer.to(dtype)
    assert relative_error(layer((features.mT @ features).flatten(1).to(dtype)), expected) < RELATIVE[dtype]


@pytest.mark.parametrize("locations", [5, 2])
def test_the_gradient_is_right_and_not_zero_at_the_start(locations: int) -> None:
    """Also where the matrix is rank-deficient."""
    layer = LowRankClassifier(4, 2, rank=2).double()
    features = torch.randn(2, locations, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f, *_: scored(layer, f), (features, *layer.parameters()))
    scored(layer, features.detach()).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_a_black_image_scores_the_bias_and_learns_on() -> None:
    layer, features = LowRankClassifier(6, 3), torch.zeros(1, 9, 6, requires_grad=True)
    torch.nn.init.normal_(layer.bias)
    scores = scored(layer, features)
    assert torch.equal(scores[0], layer.bias)
    (gradient,) = torch.autograd.grad(scores.sum(), features)
    assert not gradient.any()


def test_a_batch_answers_as_its_images_alone() -> None:
    layer, features = LowRankClassifier(6, 3), torch.randn(7, 9, 6)
    features[2] = 0
    alone = torch.cat([scored(layer, image[None]) for image in features])
    assert relative_error(scored(layer, features), alone) < 1e-6


def test_it_stays_float32_under_autocast_and_for_bfloat16() -> None:
    """A score is a difference of energies: in bfloat16 nothing of it would be left."""
    layer, features = LowRankClassifier(6, 3), torch.randn(4, 50, 6)
    matrix = (features.mT @ features).flatten(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, rounded = layer(matrix), layer(matrix.bfloat16())
    layer.double()
    assert relative_error(found, layer(matrix.double())) < RELATIVE[torch.float32]
    assert relative_error(rounded, layer(matrix.bfloat16().double())) < RELATIVE[torch.float32]


def test_it_never_holds_more_than_rank_numbers_a_direction() -> None:
    layer = LowRankClassifier(100, 14)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 14 * (100 * 8 + 1)
    again = LowRankClassifier(100, 14)
    assert torch.equal(layer.positive, again.positive)
    assert float(layer.positive.detach().std()) == pytest.approx(1 / 100**0.5, rel=0.05)  # columns of length 1 or so


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_a_rank_that_cannot_be_halved_is_refused(rank: int) -> None:
    with pytest.raises(ValueError, match=f"rank of the classifier must be even and at least 2, got {rank}"):
        LowRankClassifier(5, 2, rank)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"flattened matrices \(batch, 25\), got shape \(2, 24\)"):
        LowRankClassifier(5, 2)(torch.zeros(2, 24))
