from __future__ import annotations

import pytest
import torch

from rankone.model.normalization import MatrixPower
from rankone.model.normalization.newton_schulz import NewtonSchulz, newton_schulz_root
from rankone.model.statistics import gram
from tests import oracles
from tests.tolerances import RELATIVE, relative_error


def matrices(batch: int = 3, locations: int = 30, dim: int = 12) -> torch.Tensor:
    return gram(torch.rand(batch, locations, dim, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("iterations", [1, 2, 5, 8])
@pytest.mark.parametrize("locations", [30, 5])
def test_it_is_the_published_iteration(dtype: torch.dtype, iterations: int, locations: int) -> None:
    """Also on rank-deficient matrices. The fewer products of the first and the last step change nothing."""
    matrix = matrices(locations=locations)
    expected = torch.stack([oracles.newton_schulz(one, iterations) for one in matrix])
    found = NewtonSchulz(12, iterations)(matrix.to(dtype))
    assert found.dtype == dtype
    assert relative_error(found, expected) < RELATIVE[dtype]


def test_twenty_steps_are_the_square_root_and_five_are_not() -> None:
    matrix = matrices(locations=400) + torch.eye(12)
    root = MatrixPower(12)(matrix)
    assert relative_error(NewtonSchulz(12, 20)(matrix), root) < 1e-9
    spread = gram(torch.rand(1, 784, 256, dtype=torch.float64))
    five = relative_error(NewtonSchulz(256, 5)(spread), MatrixPower(256)(spread))
    assert 0.2 < five < 0.9
    assert relative_error(NewtonSchulz(256, 8)(spread), MatrixPower(256)(spread)) < five


@pytest.mark.parametrize("iterations", [1, 2, 5])
@pytest.mark.parametrize("locations", [20, 3])
def test_the_gradient_is_right_also_for_rank_deficient_features(iterations: int, locations: int) -> None:
    features = torch.rand(2, locations, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: newton_schulz_root(gram(f), iterations), features)


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_the_gradient_is_right_at_repeated_and_zero_eigenvalues(iterations: int) -> None:
    matrix = torch.diag(torch.tensor([2.0, 2.0, 1.0, 0.0, 0.0], dtype=torch.float64))[None].requires_grad_()
    assert torch.autograd.gradcheck(lambda m: newton_schulz_root(m, iterations), matrix)


@pytest.mark.parametrize("locations", [40, 10])
def test_the_gradient_in_float32_is_that_in_float64(locations: int) -> None:
    matrix, p = matrices(locations=locations), torch.randn(3, 12, 12, dtype=torch.float64)
    found = []
    for dtype in (torch.float32, torch.float64):
        leaf = matrix.to(dtype).requires_grad_()
        found.append(torch.autograd.grad(newton_schulz_root(leaf, 5), leaf, p.to(dtype))[0])
    assert relative_error(found[0], found[1]) < RELATIVE[torch.float32]


def test_a_black_image_stays_zero_among_others_with_finite_gradients() -> None:
    matrix = matrices().float()
    matrix[1] = 0
    matrix.requires_grad_()
    layer = NewtonSchulz(12)
    out = layer(matrix)
    assert torch.equal(out[1], torch.zeros(12, 12))
    out.sum().backward()
    assert matrix.grad is not None
    assert matrix.grad.isfinite().all()
    alone = torch.cat([layer(one[None]) for one in matrix])
    assert relative_error(out, alone) < 1e-6


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_it_scales_as_a_root(scale: float) -> None:
    matrix, layer = matrices().float(), NewtonSchulz(12)
    assert relative_error(layer(matrix * scale), layer(matrix) * scale**0.5) < RELATIVE[torch.float32]


def test_it_stays_float32_under_autocast_and_for_bfloat16() -> None:
    matrix, layer = matrices().float(), NewtonSchulz(12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(matrix)
    assert torch.equal(found, layer(matrix))
    rounded = matrix.to(torch.bfloat16)
    assert layer(rounded).dtype == torch.float32
    assert relative_error(layer(rounded), layer(rounded.double())) < RELATIVE[torch.float32]


def test_wrong_shapes_and_options_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(batch, 12, 12\), got shape \(2, 12, 11\)"):
        NewtonSchulz(12)(torch.zeros(2, 12, 11))
    with pytest.raises(ValueError, match="iterations must be at least 1, got 0"):
        NewtonSchulz(12, 0)
