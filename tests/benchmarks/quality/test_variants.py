from __future__ import annotations

import pytest
import torch

from benchmarks.quality.variants import VARIANTS, MeanOfStarts, Power, ToTheSecond
from rankone.model.catalogue import build
from rankone.model.network import Network
from rankone.model.normalization.rank_one import rank_one_update


@pytest.mark.parametrize("title", VARIANTS)
def test_every_variant_makes_embeddings_of_length_1(title: str) -> None:
    pooling = VARIANTS[title](0)
    network = Network(torch.nn.Identity(), pooling, None).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        found = network.represent_features(torch.rand(2, 20, 512))
    assert found.shape == (2, pooling.out_dim)
    assert torch.allclose(found.norm(dim=1), torch.ones(2), atol=1e-5)


def test_the_largest_value_becomes_the_second() -> None:
    features = torch.rand(1, 30, 6, dtype=torch.float64)
    matrix = features.transpose(1, 2) @ features
    values = torch.linalg.eigvalsh(matrix)[0]
    found = torch.linalg.eigvalsh(ToTheSecond()(matrix))[0]
    assert torch.allclose(found, torch.cat([values[:-1], values[-2:-1]]).sort().values)


def test_the_mean_is_that_of_eight_different_updates() -> None:
    layer, matrix = MeanOfStarts(1, seed=3), torch.eye(512)[None] + torch.ones(1, 512, 512)
    updates = [rank_one_update(matrix, start, 0.6, 1) for start in layer.starts]
    assert len(updates) == 8
    assert not torch.allclose(updates[0], updates[1])
    assert torch.allclose(layer(matrix), torch.stack(updates).sum(0) / 8, atol=1e-5)


def test_a_power_of_a_half_is_the_signed_square_root() -> None:
    pooling, features = build("cbp-run", dim=100), torch.rand(2, 9, 512)
    assert torch.allclose(Power(pooling, 0.5)(features), pooling(features), atol=1e-6)
    assert not torch.allclose(Power(pooling, 0.3)(features), pooling(features), atol=1e-2)
