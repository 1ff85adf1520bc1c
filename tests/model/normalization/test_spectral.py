from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rankone.model.normalization.spectral import MatrixLogarithm, MatrixPower, matrix_logarithm, matrix_power
from rankone.model.statistics import gram
from tests import oracles
from tests.tolerances import RELATIVE, relative_error

CASES: dict[str, tuple[Callable[[int], nn.Module], Callable[[float], float]]] = {
    "root": (MatrixPower, math.sqrt),
    "root of G2DeNet": (lambda dim: MatrixPower(dim, eps=1e-3), lambda x: math.sqrt(x + 1e-3)),
    "power 0.3": (lambda dim: MatrixPower(dim, power=0.3), lambda x: x**0.3),
    "power 0.7": (lambda dim: MatrixPower(dim, power=0.7, eps=1e-2), lambda x: (x + 1e-2) ** 0.7),
    "power 1": (lambda dim: MatrixPower(dim, power=1.0), lambda x: x),
    "logarithm": (MatrixLogarithm, lambda x: math.log(x + 1e-3)),
}


def with_eigenvalues(values: list[float]) -> Tensor:
    """One matrix (1, D, D) with these eigenvalues, in float64."""
    vectors = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64))[0]
    matrix = (vectors * torch.tensor(values, dtype=torch.float64)) @ vectors.T
    symmetric: Tensor = (matrix + matrix.T) / 2
    return symmetric[None]


def with_singular_values(values: list[float], channels: int) -> Tensor:
    """Features (1, N, D) of one image with these N singular values, N < D, in float64."""
    left = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(channels, len(values), dtype=torch.float64))[0]
    features: Tensor = (left * torch.tensor(values, dtype=torch.float64)) @ right.T
    return features[None]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("locations", [40, 5])
@pytest.mark.parametrize("name", CASES)
def test_it_is_the_function_of_every_eigenvalue(name: str, locations: int, dtype: torch.dtype) -> None:
    """Also of the zeros of rank-deficient matrices."""
    build, function = CASES[name]
    matrix = gram(torch.rand(3, locations, 12, dtype=torch.float64))
    expected = torch.stack([oracles.spectral(one, function) for one in matrix])
    found = build(12)(matrix.to(dtype))
    assert found.dtype == dtype
    # a root turns a rounding of 1e-7 at an eigenvalue of 0, which float32 input brings with it, into 3e-4
    tolerance = 3e-3 if dtype == torch.float32 and locations < 12 else RELATIVE[dtype]
    if name in {"power 0.3"} and tolerance > 1e-9:
        tolerance = 3e-2 if locations < 12 else 1e-3
    assert relative_error(found, expected) < tolerance


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("locations", [20, 3])
def test_the_gradient_to_the_features_is_right_also_where_they_are_rank_deficient(name: str, locations: int) -> None:
    layer = CASES[name][0](5)
    features = torch.rand(2, locations, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: layer(gram(f)), features, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_right_at_repeated_eigenvalues(name: str) -> None:
    layer = CASES[name][0](4)
    matrix = with_eigenvalues([2.0, 2.0, 2.0, 0.5]).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: layer((m + m.mT) / 2), matrix, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_right_at_repeated_and_zero_eigenvalues_at_once(name: str) -> None:
    """Four locations of six channels: of the six eigenvalues three are equal and two are 0."""
    layer = CASES[name][0](6)
    features = with_singular_values([2.0, 2.0, 2.0, 0.7], channels=6).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: layer(gram(f)), features, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("gap", [0.0, 1e-14, 1e-12, 1e-10, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3])
def test_the_derivative_at_neighbouring_eigenvalues_is_their_divided_difference(name: str, gap: float) -> None:
    """On a diagonal matrix the off-diagonal derivative is (f(a) - f(b)) / (a - b): here by its series."""
    build, function = CASES[name]
    a, b = 0.7 + gap, 0.7
    matrix = torch.diag(torch.tensor([a, b], dtype=torch.float64))[None].requires_grad_()
    build(2)(matrix)[0, 0, 1].backward()
    assert matrix.grad is not None
    middle, step = (a + b) / 2, 1e-3
    # the divided difference over any small interval around the middle is f'(middle) + f'''(middle) (a - b)^2 / 24
    outer = [(function(middle + k * step) - function(middle - k * step)) / (2 * k * step) for k in (1, 2)]
    third = (outer[1] - outer[0]) / (3 * step**2 / 6)
    slope = outer[0] - third * step**2 / 6
    expected = slope + third * (a - b) ** 2 / 24
    assert float(matrix.grad[0, 0, 1]) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("eps", [1e-3, 1e-2])
@pytest.mark.parametrize("power", [0.3, 0.5, 0.7])
def test_the_derivative_between_eigenvalues_far_below_eps_is_the_slope_at_eps(power: float, eps: float) -> None:
    """There the difference of two powers is rounding alone, however far apart the eigenvalues are beside each other."""
    matrix = torch.diag(torch.tensor([1e-15, 2e-15, 1e-9], dtype=torch.float64))[None].requires_grad_()
    MatrixPower(3, power=power, eps=eps)(matrix).sum().backward()
    assert matrix.grad is not None
    slope = torch.full((3, 3), power * eps ** (power - 1), dtype=torch.float64)
    assert relative_error(matrix.grad[0], slope) < 1e-6


@pytest.mark.parametrize("name", CASES)
def test_a_black_image_is_what_the_formula_says_with_finite_gradients(name: str) -> None:
    build, function = CASES[name]
    features = torch.zeros(1, 9, 6, requires_grad=True)
    out = build(6)(gram(features))
    assert torch.allclose(out[0], function(0.0) * torch.eye(6), atol=1e-6)
    out.sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("name", CASES)
def test_a_batch_answers_as_its_images_alone(name: str) -> None:
    layer = CASES[name][0](8)
    matrix = gram(torch.rand(7, 20, 8))
    matrix[3] = 0
    assert relative_error(layer(matrix), torch.cat([layer(one[None]) for one in matrix])) < 1e-6


@pytest.mark.parametrize("name", CASES)
def test_it_stays_float32_under_autocast_and_for_bfloat16(name: str) -> None:
    layer, matrix = CASES[name][0](8), gram(torch.rand(2, 20, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(matrix)
    assert torch.equal(found, layer(matrix))
    rounded = matrix.to(torch.bfloat16)
    assert layer(rounded).dtype == torch.float32
    assert relative_error(layer(rounded), layer(rounded.double())) < RELATIVE[torch.float32]


@pytest.mark.parametrize(("locations", "tolerance"), [(40, 1e-4), (10, 1e-1)])
@pytest.mark.parametrize("name", CASES)
def test_the_gradient_in_float32_is_that_in_float64(name: str, locations: int, tolerance: float) -> None:
    """Of a rank-deficient matrix too, whose zeros are rounding in float32: near enough there, and never large."""
    layer, features, p = CASES[name][0](16), torch.rand(2, locations, 16), torch.randn(2, 16, 16)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        leaf = features.to(dtype, copy=True).requires_grad_()
        (layer(gram(leaf)) * p.to(dtype)).sum().backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad)
    assert relative_error(gradients[0], gradients[1]) < tolerance


@pytest.mark.parametrize("name", CASES)
def test_it_works_in_float64_whatever_comes_in(name: str) -> None:
    layer, matrix, p = CASES[name][0](8), gram(torch.rand(2, 20, 8)), torch.randn(2, 8, 8)
    leaf, exact = matrix.clone().requires_grad_(), matrix.double().requires_grad_()
    out, expected = layer(leaf), layer(exact)
    assert torch.equal(out, expected.float())
    out.backward(p)
    expected.backward(p.double())
    assert leaf.grad is not None
    assert exact.grad is not None
    assert torch.equal(leaf.grad, exact.grad.float())


def test_the_derivative_of_the_logarithm_is_exact_between_eigenvalues_far_apart() -> None:
    """From either of the two: the smaller one divides, or `1 + (a - b) / b` would lose its digits."""
    matrix = torch.diag(torch.tensor([1e11, 0.0], dtype=torch.float64))[None].requires_grad_()
    MatrixLogarithm(2)(matrix).sum().backward()
    assert matrix.grad is not None
    expected = (math.log(1e11 + 1e-3) - math.log(1e-3)) / 1e11
    for i, j in ((0, 1), (1, 0)):
        assert float(matrix.grad[0, i, j]) == pytest.approx(expected, rel=1e-12)


def test_there_is_no_second_derivative_rather_than_a_wrong_one() -> None:
    leaf = with_eigenvalues([2.0, 1.0, 0.5]).requires_grad_()
    (gradient,) = torch.autograd.grad(matrix_power(leaf).square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_the_square_of_the_root_is_the_matrix_and_powers_multiply() -> None:
    matrix = gram(torch.rand(2, 30, 10, dtype=torch.float64))
    root = matrix_power(matrix)
    assert relative_error(root @ root, matrix) < 1e-9
    assert relative_error(matrix_power(matrix_power(matrix, 0.6), 0.5), matrix_power(matrix, 0.3)) < 1e-9


def test_a_small_eigenvalue_is_not_taken_for_0() -> None:
    values = torch.linalg.eigvalsh(matrix_power(with_eigenvalues([1.0, 0.5, 1e-12])))
    assert torch.allclose(values[0], torch.tensor([1e-6, 0.5**0.5, 1.0], dtype=torch.float64), atol=1e-9)


def test_a_change_of_basis_passes_through() -> None:
    matrix = gram(torch.rand(1, 30, 6, dtype=torch.float64))
    basis = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    for function in (matrix_power, matrix_logarithm):
        turned = function(basis @ matrix @ basis.T)
        assert relative_error(turned, basis @ function(matrix) @ basis.T) < 1e-9


def test_wrong_shapes_and_options_are_refused() -> None:
    for layer in (MatrixPower(5), MatrixLogarithm(5)):
        with pytest.raises(ValueError, match=r"\(batch, 5, 5\), got shape \(2, 5, 6\)"):
            layer(torch.zeros(2, 5, 6))
    for power in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"power must lie above 0 and be at most 1, got {power}"):
            MatrixPower(5, power=power)
    for eps in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"eps must be finite and not negative, got {eps}"):
            MatrixPower(5, eps=eps)
    for eps in (0.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"eps must be finite and positive, got {eps}"):
            MatrixLogarithm(5, eps=eps)
