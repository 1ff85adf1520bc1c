from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from model.catalogue import SYSTEMS, build
from model.normalization import RankOneUpdate
from model.projection import Flatten, RandomMaclaurin, TensorSketch
from tests import oracles
from tests.tolerances import EMBEDDING, relative_error

CHANNELS, BINS = 12, 40

DIMENSIONS = {
    "bcnn": 512 * 512,
    "cbp-ts": 8192,
    "cbp-rm": 8192,
    "bp-run": 512 * 512,
    "cbp-run": 10_000,
    "cbp-run-rm": 10_000,
}


def small(name: str) -> nn.Module:
    return build(name, CHANNELS, **({"dim": BINS} if "dim" in SYSTEMS[name].defaults else {})).eval()


def reference(name: str) -> Callable[[nn.Module, Tensor], Tensor]:
    """From the features of one image (N, D) to its embedding, by the oracles alone."""

    def embed(pooling: nn.Module, features_ND: Tensor) -> Tensor:
        features = features_ND.double() / features_ND.shape[0] ** 0.5
        if isinstance(pooling.normalization, RankOneUpdate):
            features = oracles.run_on_features(features, pooling.normalization.v0, 0.6, 2)
        sketch = pooling.projection
        if isinstance(sketch, TensorSketch):
            return oracles.embedding_of(
                oracles.tensor_sketch_by_fft(features, (sketch.h1, sketch.h2), (sketch.s1, sketch.s2), sketch.out_dim)
            )
        if isinstance(sketch, RandomMaclaurin):
            return oracles.embedding_of(oracles.random_maclaurin_by_locations(features, sketch.w1, sketch.w2))
        assert isinstance(sketch, Flatten), name
        return oracles.embedding_of((features.T @ features).flatten())

    return embed


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_is_its_formula(name: str, dtype: torch.dtype) -> None:
    pooling = small(name)
    features = torch.rand(3, 20, CHANNELS, dtype=torch.float64)
    expected = torch.stack([reference(name)(pooling, image) for image in features])
    found = pooling(features.to(dtype))
    assert found.dtype == dtype
    assert relative_error(found, expected) < EMBEDDING[dtype]


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_at_full_size_in_float32_against_float64(name: str) -> None:
    pooling = build(name).eval()
    features = torch.rand(2, 784, 512, generator=torch.Generator().manual_seed(1))
    found, expected = pooling(features), pooling(features.double())
    assert found.shape == (2, DIMENSIONS[name]) == (2, pooling.out_dim)
    assert relative_error(found, expected) < EMBEDDING[torch.float32]


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_answers_a_batch_as_its_images_alone(name: str) -> None:
    pooling = small(name)
    features = torch.rand(7, 20, CHANNELS)
    alone = torch.cat([pooling(image[None]) for image in features])
    assert relative_error(pooling(features), alone) < 1e-5


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_keeps_a_black_image_zero_and_learns_on(name: str) -> None:
    pooling = small(name)
    features = torch.zeros(1, 20, CHANNELS, requires_grad=True)
    out = pooling(features)
    out.sum().backward()
    assert torch.equal(out, torch.zeros_like(out))
    assert features.grad is not None
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_has_the_right_gradient(name: str) -> None:
    """On features whose pooled entries are far from 0, where the slope of ssqrt is not the bounded one."""
    options = {"dim": 6} if "dim" in SYSTEMS[name].defaults else {}
    pooling = build(name, 4, **options).double().eval()
    features = torch.rand(1, 9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.2
    pooled = pooling.projection(pooling.normalization(pooling.statistic(features)))
    roots = pooled.abs().sqrt()
    assert float(roots[pooled != 0].min()) > 0.1 * float(roots.square().mean().sqrt())
    assert torch.autograd.gradcheck(pooling, features.requires_grad_(), eps=1e-7, atol=1e-4)


def test_options_reach_the_parts_they_belong_to() -> None:
    pooling = build("cbp-run", 8, eta=0.5, iterations=3, dim=77, seed=9, resample=True)
    assert isinstance(pooling.normalization, RankOneUpdate)
    assert (pooling.normalization.eta, pooling.normalization.iterations, pooling.normalization.resample) == (
        0.5,
        3,
        True,
    )
    assert torch.equal(pooling.normalization.v0, RankOneUpdate(8, seed=9).v0)
    assert isinstance(pooling.projection, TensorSketch)
    assert torch.equal(pooling.projection.h1, TensorSketch(8, 77, seed=9).h1)


def test_unknown_systems_and_options_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown pooling system 'cbp'; known: bcnn, cbp-ts"):
        build("cbp")
    with pytest.raises(ValueError, match="cbp-ts has no option eta; it has: dim, seed"):
        build("cbp-ts", eta=0.5)
    with pytest.raises(ValueError, match="bcnn has no option dim; it has: none at all"):
        build("bcnn", dim=5)
