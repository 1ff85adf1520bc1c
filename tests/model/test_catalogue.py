from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rankone.model.catalogue import SYSTEMS, build, composition
from rankone.model.normalization import RankOneUpdate
from rankone.model.pooling import Pooling
from rankone.model.projection import LowRank, RandomMaclaurin, TensorSketch
from tests import oracles
from tests.tolerances import EMBEDDING, relative_error

CHANNELS, BINS = 12, 40

ROOT = {"power": 0.5, "eps": 0.0}
RUN = {"eta": 0.6, "iterations": 2, "resample": False, "seed": 0}
PUBLISHED: dict[str, tuple[int, dict[str, float]]] = {
    "max": (512, {}),
    "sum": (512, {}),
    "bcnn": (262_144, {}),
    "improved-bcnn": (262_144, ROOT),
    "bcnn-ns": (262_144, {"iterations": 5}),
    "o2p": (262_144, {"eps": 1e-3}),
    "mpn-cov": (131_328, ROOT),
    "isqrt-cov": (131_328, {"iterations": 5}),
    "g2denet": (263_169, {"power": 0.5, "eps": 1e-3}),
    "cbp-ts": (8192, {"dim": 8192, "seed": 0}),
    "cbp-rm": (8192, {"dim": 8192, "seed": 0}),
    "lrbp": (10_000, {"rank": 100, "seed": 0, "pca": False}),
    "monet-2": (10_000, {**ROOT, "dim": 10_000, "seed": 0}),
    "monet": (10_000, {**ROOT, "dim": 10_000, "seed": 0}),
    "bp-run": (262_144, RUN),
    "cbp-run": (10_000, {**RUN, "dim": 10_000}),
    "cbp-run-rm": (10_000, {**RUN, "dim": 10_000}),
}
"""Dimension at 512 channels, and every option, of the table in the paper's catalogue."""
OURS: dict[str, tuple[int, dict[str, float]]] = {"cbp-run-mild": (10_000, {**RUN, "eta": 0.3, "dim": 10_000})}

EIGEN = {"improved-bcnn", "o2p", "mpn-cov", "g2denet", "monet-2", "monet"}


def small(name: str, channels: int = CHANNELS, bins: int = BINS) -> Pooling:
    sizes = {"dim": bins, "rank": 3}
    options = SYSTEMS[name].composition.options
    return build(name, channels, **{key: size for key, size in sizes.items() if key in options}).eval()


def gram(features: Tensor) -> Tensor:
    return oracles.gram_by_loops(features[None])[0]


def damped(pooling: Pooling, features: Tensor, eta: float = 0.6) -> Tensor:
    assert isinstance(pooling.normalization, RankOneUpdate)
    scaled = features.double() / math.sqrt(len(features))
    return oracles.run_on_features(scaled, pooling.normalization.v0, eta, 2)


def tensor_sketch(pooling: Pooling, matrix: Tensor) -> Tensor:
    sketch = pooling.projection
    assert isinstance(sketch, TensorSketch)
    return oracles.tensor_sketch_by_loops(matrix, (sketch.h1, sketch.h2), (sketch.s1, sketch.s2), sketch.out_dim)


def random_maclaurin(pooling: Pooling, matrix: Tensor) -> Tensor:
    sketch = pooling.projection
    assert isinstance(sketch, RandomMaclaurin)
    return torch.stack(
        [a @ matrix @ b for a, b in zip(sketch.w1.double(), sketch.w2.double(), strict=True)]
    ) / math.sqrt(sketch.out_dim)


def projected(pooling: Pooling, matrix: Tensor) -> Tensor:
    assert isinstance(pooling.projection, LowRank)
    return oracles.low_rank_by_loops(matrix, pooling.projection.weight)


def root(matrix: Tensor) -> Tensor:
    return oracles.spectral(matrix, math.sqrt)


REFERENCES: dict[str, Callable[[Pooling, Tensor], Tensor]] = {
    "max": lambda _, f: f.double().amax(0),
    "sum": lambda _, f: f.double().sum(0),
    "bcnn": lambda _, f: gram(f).flatten(),
    "improved-bcnn": lambda _, f: root(gram(f)).flatten(),
    "bcnn-ns": lambda _, f: oracles.newton_schulz(gram(f), 5).flatten(),
    "o2p": lambda _, f: oracles.spectral(gram(f), lambda x: math.log(x + 1e-3)).flatten(),
    "mpn-cov": lambda _, f: oracles.upper_triangle_by_loops(root(oracles.covariance_by_loops(f[None])[0])),
    "isqrt-cov": lambda _, f: oracles.upper_triangle_by_loops(
        oracles.newton_schulz(oracles.covariance_by_loops(f[None])[0], 5)
    ),
    "g2denet": lambda _, f: oracles.spectral(
        oracles.bordered(f.double().sqrt()[None], first=False)[0], lambda x: math.sqrt(x + 1e-3)
    ).flatten(),
    "cbp-ts": lambda p, f: tensor_sketch(p, gram(f)),
    "cbp-rm": lambda p, f: random_maclaurin(p, gram(f)),
    "lrbp": lambda p, f: projected(p, gram(f)),
    "monet-2": lambda p, f: tensor_sketch(p, root(gram(f))),
    "monet": lambda p, f: tensor_sketch(p, root(oracles.bordered(f.double().sqrt()[None], first=True)[0])),
    "bp-run": lambda p, f: (damped(p, f).T @ damped(p, f)).flatten(),
    "cbp-run": lambda p, f: tensor_sketch(p, damped(p, f).T @ damped(p, f)),
    "cbp-run-mild": lambda p, f: tensor_sketch(p, damped(p, f, 0.3).T @ damped(p, f, 0.3)),
    "cbp-run-rm": lambda p, f: random_maclaurin(p, damped(p, f).T @ damped(p, f)),
}
"""From the features of one image, not negative, to its pooled vector: the formulas, with the tables of the layer."""

BARE = {"mpn-cov", "isqrt-cov"}
"""Systems without an element-wise step."""


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_is_its_formula(name: str, dtype: torch.dtype) -> None:
    pooling = small(name)
    features = torch.rand(3, 40, CHANNELS, dtype=torch.float64)
    vectors = [REFERENCES[name](pooling, image) for image in features]
    expected = torch.stack(vectors if name in BARE else [oracles.embedding_of(vector) for vector in vectors])
    found = pooling(features.to(dtype))
    assert found.dtype == dtype
    assert relative_error(found, expected) < EMBEDDING[dtype]


def test_the_catalogue_is_the_papers_and_ours() -> None:
    assert set(SYSTEMS) == set(PUBLISHED) | set(OURS) == set(REFERENCES)
    assert {name for name, system in SYSTEMS.items() if system.composition.needs_eigendecomposition} == EIGEN
    assert {name for name, system in SYSTEMS.items() if system.sibling} == EIGEN


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_has_its_published_size_and_options(name: str) -> None:
    dim, options = (PUBLISHED | OURS)[name]
    assert build(name).out_dim == dim
    assert composition(name).options == options


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_at_full_size_in_float32_against_float64(name: str) -> None:
    pooling = build(name).eval()
    features = torch.rand(1, 784, 512, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, expected = pooling(features), pooling(features.double())
    assert found.shape == (1, pooling.out_dim)
    assert relative_error(found, expected) < EMBEDDING[torch.float32]


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_stays_float32_under_autocast_and_for_bfloat16(name: str) -> None:
    pooling, features = small(name), torch.rand(2, 40, CHANNELS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pooling(features)
    assert torch.equal(found, pooling(features))
    rounded = features.to(torch.bfloat16)
    assert relative_error(pooling(rounded), pooling(rounded.double())) < EMBEDDING[torch.float32]


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_learns_from_bfloat16_under_autocast_as_in_float64(name: str) -> None:
    """Before the element-wise step, whose bounded slope jumps from bin to bin."""
    pooling, rounded = small(name), torch.rand(2, 40, CHANNELS).to(torch.bfloat16)
    leaf, exact = rounded.clone().requires_grad_(), rounded.double().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = pooling.pool(leaf)
    gradient = torch.randn_like(pooled)
    pooled.backward(gradient)
    pooling.double().pool(exact).backward(gradient.double())
    assert leaf.grad is not None
    assert exact.grad is not None
    assert relative_error(leaf.grad, exact.grad) < 2**-7  # a gradient comes out in the type that went in


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_answers_a_batch_as_its_images_alone(name: str) -> None:
    pooling = small(name)
    features = torch.rand(7, 40, CHANNELS)
    features[3] = 0
    alone = torch.cat([pooling(image[None]) for image in features])
    assert relative_error(pooling(features), alone) < 1e-4
    assert pooling(features).isfinite().all()


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_takes_a_black_image_and_learns_on(name: str) -> None:
    """It stays zero, but where the formula gives something: the logarithm of eps, and the constant channel."""
    pooling = small(name)
    features = torch.zeros(1, 20, CHANNELS, requires_grad=True)
    out = pooling(features)
    out.sum().backward()
    constant = {"o2p", "g2denet", "monet"}
    assert bool(out.any()) is (name in constant)
    assert out.isfinite().all()
    assert features.grad is not None
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("locations", [9, 3])
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_has_the_right_gradient(name: str, locations: int) -> None:
    """Also with fewer locations than channels. Before the element-wise step, whose slope is bounded on purpose."""
    pooling = small(name, channels=4, bins=6).double()
    features = torch.rand(1, locations, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.2
    assert torch.autograd.gradcheck(pooling.pool, features.requires_grad_(), atol=1e-5)


@pytest.mark.parametrize("name", ["bcnn", "bp-run", "cbp-run", "sum"])
def test_the_element_wise_step_has_the_right_gradient_where_its_slope_is_not_bounded(name: str) -> None:
    pooling = small(name, channels=4, bins=6).double()
    features = torch.rand(1, 9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.2
    pooled = pooling.pool(features)
    roots = pooled.abs().sqrt()
    assert float(roots[pooled != 0].min()) > 0.1 * float(roots.square().mean().sqrt())
    assert torch.autograd.gradcheck(pooling, features.requires_grad_(), eps=1e-7, atol=1e-4)


def test_options_reach_the_parts_they_belong_to() -> None:
    pooling = build("cbp-run", 8, eta=0.5, iterations=3, dim=77, seed=9, resample=True)
    update = pooling.normalization
    assert isinstance(update, RankOneUpdate)
    assert (update.eta, update.iterations, update.resample) == (0.5, 3, True)
    assert torch.equal(update.v0, RankOneUpdate(8, seed=9).v0)
    assert isinstance(pooling.projection, TensorSketch)
    assert torch.equal(pooling.projection.h1, TensorSketch(8, 77, seed=9).h1)


def test_unknown_systems_and_options_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown pooling system 'cbp'; known: max, sum, bcnn"):
        build("cbp")
    with pytest.raises(ValueError, match="cbp-ts has no option eta; it has: dim, seed"):
        build("cbp-ts", eta=0.5)
    with pytest.raises(ValueError, match="bcnn has no option dim; it has: none at all"):
        build("bcnn", dim=5)
    with pytest.raises(ValueError, match="iterations must be a whole number, got 2.5"):
        build("bcnn-ns", iterations=2.5)
