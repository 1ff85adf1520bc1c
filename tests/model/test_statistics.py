from __future__ import annotations

import pytest
import torch

from model.statistics import Gram, gram
from tests.oracles import gram_by_loops
from tests.tolerances import RELATIVE, relative_error


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gram_is_the_mean_outer_product(dtype: torch.dtype) -> None:
    features = torch.randn(3, 11, 7, dtype=dtype)
    assert relative_error(gram(features), gram_by_loops(features)) < RELATIVE[dtype]


def test_gram_of_half_precision_features_is_summed_in_float32_without_overflow() -> None:
    features = torch.full((1, 784, 4), 300.0, dtype=torch.float16)
    found = gram(features)
    assert found.dtype == torch.float32
    assert relative_error(found, torch.full((1, 4, 4), 90_000.0)) < RELATIVE[torch.float32]


def test_gram_stays_float32_under_autocast() -> None:
    features = torch.randn(2, 50, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = Gram()(features)
    assert torch.equal(found, gram(features))


def test_gram_has_the_right_gradient() -> None:
    assert torch.autograd.gradcheck(gram, torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True))


def test_gram_refuses_what_is_not_local_features() -> None:
    with pytest.raises(ValueError, match=r"\(batch, locations, channels\), got shape \(3, 8, 14, 14\)"):
        gram(torch.zeros(3, 8, 14, 14))
