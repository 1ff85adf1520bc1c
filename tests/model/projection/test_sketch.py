from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from rankone.model.projection import RandomMaclaurin, TensorSketch
from tests.oracles import random_maclaurin_by_locations, tensor_sketch_by_fft, tensor_sketch_by_loops
from tests.tolerances import RELATIVE, relative_error


def hashes(sketch: TensorSketch) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    return (sketch.h1, sketch.h2), (sketch.s1, sketch.s2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_sketch_of_the_gram_matrix_is_the_sum_of_fft_sketches(dtype: torch.dtype) -> None:
    features = torch.randn(2, 13, 24, dtype=torch.float64)
    sketch = TensorSketch(24, 50, seed=5)
    expected = torch.stack([tensor_sketch_by_fft(image, *hashes(sketch), 50) for image in features])
    found = sketch((features.mT @ features).to(dtype))
    assert found.dtype == dtype
    assert relative_error(found, expected) < RELATIVE[dtype]


def test_the_sketch_of_any_matrix_is_its_count_sketch() -> None:
    """Not symmetric, and with far more entries than bins: every bin collects many, with both signs."""
    matrix = torch.randn(2, 20, 20, dtype=torch.float64)
    sketch = TensorSketch(20, 7)
    expected = torch.stack([tensor_sketch_by_loops(one, *hashes(sketch), 7) for one in matrix])
    assert relative_error(sketch(matrix), expected) < RELATIVE[torch.float64]


def test_the_sketch_at_full_size() -> None:
    features = torch.rand(2, 100, 512, dtype=torch.float64)
    sketch = TensorSketch(512)
    expected = torch.stack([tensor_sketch_by_fft(image[:2], *hashes(sketch), 10_000) for image in features])
    matrices = features[:, :2].mT @ features[:, :2]
    assert relative_error(sketch(matrices), expected) < RELATIVE[torch.float64]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_random_maclaurin_of_the_gram_matrix_is_the_sum_over_locations(dtype: torch.dtype) -> None:
    features = torch.randn(2, 13, 24, dtype=torch.float64)
    sketch = RandomMaclaurin(24, 50, seed=5)
    expected = torch.stack([random_maclaurin_by_locations(image, sketch.w1, sketch.w2) for image in features])
    assert relative_error(sketch((features.mT @ features).to(dtype)), expected) < RELATIVE[dtype]


@pytest.mark.parametrize("kind", [TensorSketch, RandomMaclaurin])
def test_inner_products_are_unbiased_over_seeds(kind: type[nn.Module]) -> None:
    a, b = torch.rand(2, 6, 6, dtype=torch.float64)
    products = torch.stack([kind(6, 40, seed)(torch.stack([a, b])).prod(dim=0).sum() for seed in range(600)])
    error = products.std() / 600**0.5
    assert abs(float(products.mean() - (a * b).sum())) < 4 * float(error)


@pytest.mark.parametrize("kind", [TensorSketch, RandomMaclaurin])
def test_their_variance_falls_as_one_over_the_dimension(kind: Callable[..., nn.Module]) -> None:
    a, b = torch.rand(2, 6, 6, dtype=torch.float64)
    a, b = a + a.T, b + b.T
    variances = [
        torch.stack([kind(6, dim, seed)(torch.stack([a, b])).prod(dim=0).sum() for seed in range(400)]).var()
        for dim in (20, 320)
    ]
    assert 8 < float(variances[0] / variances[1]) < 32


@pytest.mark.parametrize("layer", [TensorSketch(5, 9), RandomMaclaurin(5, 9)])
def test_a_black_image_is_zero(layer: nn.Module) -> None:
    assert torch.equal(layer(torch.zeros(2, 5, 5)), torch.zeros(2, 9))


@pytest.mark.parametrize("layer", [TensorSketch(5, 9), RandomMaclaurin(5, 9)])
def test_the_gradient_is_right(layer: nn.Module) -> None:
    assert torch.autograd.gradcheck(layer, torch.randn(2, 5, 5, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("layer", [TensorSketch(5, 9), RandomMaclaurin(5, 9)])
def test_a_batch_answers_as_its_images_alone(layer: nn.Module) -> None:
    matrices = torch.randn(7, 5, 5)
    assert relative_error(layer(matrices), torch.cat([layer(matrix[None]) for matrix in matrices])) < 1e-6


@pytest.mark.parametrize("layer", [TensorSketch(30, 9), RandomMaclaurin(30, 9)])
def test_it_stays_float32_under_autocast_and_for_bfloat16(layer: nn.Module) -> None:
    matrices = torch.randn(2, 30, 30)
    rounded = matrices.to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = [layer(matrices), layer(rounded)]
    for result, x in zip(found, (matrices, rounded), strict=True):
        assert result.dtype == torch.float32
        assert relative_error(result, layer(x.double())) < RELATIVE[torch.float32]


@pytest.mark.parametrize("layer", [TensorSketch(5, 9), RandomMaclaurin(5, 9)])
def test_other_shapes_are_refused(layer: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"\(batch, 5, 5\), got shape \(2, 5, 6\)"):
        layer(torch.zeros(2, 5, 6))


def test_loading_other_hashes_changes_the_sketch() -> None:
    """The tables that forward reads are derived; they must follow what is loaded."""
    source, target = TensorSketch(12, 30, seed=1), TensorSketch(12, 30, seed=2)
    matrix = torch.randn(1, 12, 12)
    assert not torch.equal(source(matrix), target(matrix))
    target.load_state_dict(source.state_dict())
    assert torch.equal(source(matrix), target(matrix))


def test_tables_are_drawn_once_from_the_seed_and_have_the_agreed_form() -> None:
    sketch = TensorSketch(512, seed=7)
    assert sketch.out_dim == 10_000
    for hashed in (sketch.h1, sketch.h2):
        assert hashed.dtype == torch.int64
        assert hashed.shape == (512,)
        assert 0 <= int(hashed.min()) < 500
        assert 9_500 < int(hashed.max()) < 10_000
    assert set(torch.cat([sketch.s1, sketch.s2]).tolist()) == {-1.0, 1.0}
    assert sketch.state_dict().keys() == {"h1", "h2", "s1", "s2"}
    assert torch.equal(sketch.h1, TensorSketch(512, seed=7).h1)
    maclaurin = RandomMaclaurin(8, 20)
    assert maclaurin.w1.shape == maclaurin.w2.shape == (20, 8)
    assert set(maclaurin.w1.flatten().tolist()) == {-1.0, 1.0}


def test_sizes_must_be_positive() -> None:
    for kind in (TensorSketch, RandomMaclaurin):
        with pytest.raises(ValueError, match="must be positive, got 8 and 0"):
            kind(8, 0)
