from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from rankone.model.normalization.rank_one import RankOneUpdate, _unit, rank_one_update, rank_one_update_features
from tests.oracles import run_on_features
from tests.tolerances import RELATIVE, relative_error


def symmetric(features_BND: Tensor) -> Tensor:
    return features_BND.mT.bmm(features_BND)


def with_spectrum(singular_values: list[float], locations: int = 20) -> Tensor:
    """One image's features (1, N, D) in float64 with these singular values."""
    dim = len(singular_values)
    left = torch.linalg.qr(torch.randn(locations, dim, dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64))[0]
    sigma = torch.diag(torch.tensor(singular_values, dtype=torch.float64))
    features: Tensor = torch.linalg.multi_dot([left, sigma, right.T])
    return features[None]


def spectrum(features_BND: Tensor) -> Tensor:
    values: Tensor = torch.linalg.svdvals(features_BND)
    return values


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("iterations", [1, 2, 5])
@pytest.mark.parametrize("eta", [0.0, 0.3, 0.6, 1.0, 2.0])
def test_both_forms_are_algorithm_3(dtype: torch.dtype, iterations: int, eta: float) -> None:
    features = torch.rand(3, 30, 12, dtype=torch.float64)
    layer = RankOneUpdate(12, eta=eta, iterations=iterations)
    expected = torch.stack([run_on_features(image, layer.v0, eta, iterations) for image in features])
    assert relative_error(layer.features(features.to(dtype)), expected) < RELATIVE[dtype]
    assert relative_error(layer(symmetric(features).to(dtype)), symmetric(expected)) < RELATIVE[dtype]


@pytest.mark.parametrize("locations", [30, 5])
def test_both_forms_have_the_right_gradient(locations: int) -> None:
    """Also with fewer locations than channels, where the Gram matrix is rank-deficient."""
    v0 = RankOneUpdate(8).v0.double()
    features = torch.randn(2, locations, 8, dtype=torch.float64, requires_grad=True)
    matrix = symmetric(features).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda f: rank_one_update_features(f, v0, 0.6, 2), features)
    assert torch.autograd.gradcheck(lambda g: rank_one_update(g, v0, 0.6, 2), matrix)


def test_the_gradient_is_right_at_repeated_and_zero_eigenvalues() -> None:
    v0 = RankOneUpdate(5).v0.double()
    features = with_spectrum([2.0, 2.0, 1.0, 0.0, 0.0]).requires_grad_()
    matrix = symmetric(features).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda f: rank_one_update_features(f, v0, 0.6, 2), features)
    assert torch.autograd.gradcheck(lambda g: rank_one_update(g, v0, 0.6, 2), matrix)


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_backward_is_that_of_appendix_b(iterations: int) -> None:
    """The explicit backward of math.md, with un-normalized iterates, against autograd through the layer."""
    eta = 0.6
    layer = RankOneUpdate(9, eta=eta, iterations=iterations).double()
    f = torch.randn(1, 14, 9, dtype=torch.float64, requires_grad=True)
    p_gradient = torch.randn(14, 9, dtype=torch.float64)
    layer.features(f).backward(p_gradient[None])

    f0, p = f.detach()[0], p_gradient
    iterates = [layer.v0]
    for _ in range(iterations):
        iterates.append(f0.T @ (f0 @ iterates[-1]))
    v = iterates[-1]
    n, fv = v @ v, f0 @ v
    df = p - eta * torch.outer(p @ v, v) / n
    dv = -eta * (f0.T @ p @ v + p.T @ fv) / n + 2 * eta * (fv @ p @ v) * v / n**2
    for u in reversed(iterates[:-1]):
        df = df + torch.outer(f0 @ u, dv) + torch.outer(f0 @ dv, u)
        dv = f0.T @ (f0 @ dv)
    assert f.grad is not None
    assert relative_error(f.grad[0], df) < 1e-9


def naive_update(matrix_BDD: Tensor, v0: Tensor, eta: float, iterations: int) -> Tensor:
    """RUN on a Gram matrix as math.md has it, for autograd to go through step by step."""
    v = v0.expand(len(matrix_BDD), -1).unsqueeze(2)
    for _ in range(iterations):
        v = matrix_BDD @ v
    u = v / v.norm(dim=1, keepdim=True)
    w = matrix_BDD @ u
    c = u.mT @ w
    updated: Tensor = matrix_BDD - eta * (u @ w.mT + w @ u.mT) + eta**2 * c * (u @ u.mT)
    return updated


@pytest.mark.parametrize("iterations", [1, 2, 4])
@pytest.mark.parametrize("eta", [0.0, 0.6, 2.0])
def test_the_backward_by_hand_is_that_of_autograd(eta: float, iterations: int) -> None:
    """On matrices that are not symmetric too, and for gradients that are not: every transpose must be in its place."""
    v0 = RankOneUpdate(16).v0.double()
    gradient = torch.randn(3, 16, 16, dtype=torch.float64)
    for matrix in (symmetric(torch.rand(3, 40, 16, dtype=torch.float64)), torch.rand(3, 16, 16, dtype=torch.float64)):
        found = [
            torch.autograd.grad(function(leaf, v0, eta, iterations), leaf, gradient)[0]
            for leaf in [matrix.clone().requires_grad_()]
            for function in (rank_one_update, naive_update)
        ]
        assert relative_error(found[0], found[1]) < 1e-9


def test_the_gradient_in_float32_is_that_in_float64_at_any_scale() -> None:
    layer, features, gradient = RankOneUpdate(64), torch.rand(3, 90, 64), torch.randn(3, 64, 64)
    for scale in (1e-12, 1.0, 1e12):
        found = []
        for dtype in (torch.float32, torch.float64):
            leaf = (symmetric(features) * scale).to(dtype).requires_grad_()
            found.append(torch.autograd.grad(layer(leaf), leaf, gradient.to(dtype))[0])
        assert relative_error(found[0], found[1]) < RELATIVE[torch.float32]


def test_with_and_without_a_gradient_the_update_is_the_same() -> None:
    layer, matrix = RankOneUpdate(12), symmetric(torch.rand(2, 30, 12))
    assert torch.equal(layer(matrix.clone().requires_grad_()).detach(), layer(matrix))


@pytest.mark.parametrize("eta", [0.2, 0.6, 0.9])
def test_eta_and_2_minus_eta_have_the_same_limit(eta: float) -> None:
    features = with_spectrum([10.0, 4.0, 2.0, 1.0])
    found = [spectrum(RankOneUpdate(4, eta=each, iterations=60).features(features)) for each in (eta, 2 - eta)]
    assert torch.allclose(found[0], found[1], atol=1e-9)


def test_the_limit_damps_the_first_singular_value_alone() -> None:
    """Many iterations: sigma_1 becomes (1 - eta) sigma_1, the others stay."""
    features = with_spectrum([10.0, 4.0, 2.0, 1.0])
    found = spectrum(RankOneUpdate(4, eta=0.6, iterations=60).features(features))[0]
    assert torch.allclose(found, torch.tensor([4.0, 4.0, 2.0, 1.0], dtype=torch.float64), atol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 2.0])
def test_eta_0_and_2_leave_the_spectrum_as_it_was(eta: float) -> None:
    features = with_spectrum([10.0, 4.0, 2.0, 1.0])
    found = spectrum(RankOneUpdate(4, eta=eta, iterations=2).features(features))
    assert torch.allclose(found, spectrum(features), atol=1e-9)


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_theorem_1_the_expectation_damps_every_singular_value_by_a_factor_within_0_and_1(iterations: int) -> None:
    """And the more steps, the more of it falls on the first one."""
    features = with_spectrum([3.0, 2.0, 1.5, 1.0])
    left, sigma, right = torch.linalg.svd(features[0], full_matrices=False)
    draws = torch.randn(3000, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mean = torch.stack([rank_one_update_features(features, v0, 0.6, iterations)[0] for v0 in draws]).mean(0)
    beta = (1 - torch.diagonal(left.T @ mean @ right.T) / sigma) / 0.6
    assert torch.all((beta > 0) & (beta < 1))
    # E[v_i^2] of the power method: the share of sigma_i^(2 K) z_i in the squared length, for z ~ N(0, I)
    squares = (draws * sigma ** (2 * iterations)).square()
    assert torch.allclose(beta, (squares / squares.sum(1, keepdim=True)).mean(0), atol=0.03)


def test_theorem_2_larger_singular_values_are_damped_more() -> None:
    """The expectation over v_0 scales sigma_i by 1 - eta beta_i with beta_1 >= beta_2 >= …, by Monte Carlo.

    E[F_K] has the singular vectors of F, so `u_i^T F_K v_i / sigma_i` averages to 1 - eta beta_i.
    """
    features = with_spectrum([3.0, 2.0, 1.5, 1.0])
    left, sigma, right = torch.linalg.svd(features[0], full_matrices=False)
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(4000, 4, generator=generator, dtype=torch.float64)
    mean = torch.stack([rank_one_update_features(features, v0, 0.6, 1)[0] for v0 in draws]).mean(0)
    scales = torch.diagonal(left.T @ mean @ right.T) / sigma
    beta = (1 - scales) / 0.6
    assert torch.all(beta[:-1] > beta[1:])
    assert float(beta.sum()) == pytest.approx(1.0, abs=1e-9)
    off_diagonal = left.T @ mean @ right.T - torch.diag(scales * sigma)
    assert off_diagonal.abs().max() < 0.05


def test_the_damping_grows_with_every_step_and_with_eta_up_to_1() -> None:
    """From the same start: what is left of sigma_1 falls with K, and the leading eigenvalue of G_K with eta."""
    features = with_spectrum([3.0, 2.0, 1.5, 1.0])
    left, _, right = torch.linalg.svd(features[0], full_matrices=False)
    v0 = torch.ones(4, dtype=torch.float64) @ right  # leans to no direction more than to another
    kept = [left[:, 0] @ rank_one_update_features(features, v0, 0.6, k)[0] @ right[0] for k in (1, 2, 3, 4, 8)]
    assert all(more > less for more, less in pairwise(kept))
    largest = [
        torch.linalg.eigvalsh(rank_one_update(symmetric(features), v0, eta, 30))[0].sort().values
        for eta in (0.0, 0.1, 0.2, 0.3)
    ]
    assert torch.allclose(torch.stack(largest)[:, -1], torch.tensor([9.0, 7.29, 5.76, 4.41], dtype=torch.float64))
    assert torch.allclose(torch.stack(largest)[:, :-1], torch.tensor([1.0, 2.25, 4.0], dtype=torch.float64))


def test_k_8_does_not_overflow_float32() -> None:
    """Un-normalized, ||v_8||^2 of features of this size is about 1e70."""
    features = torch.rand(2, 784, 64) * 30
    layer = RankOneUpdate(64, iterations=8)
    expected = torch.stack([run_on_features(image, layer.v0, 0.6, 8) for image in features])
    assert relative_error(layer.features(features), expected) < RELATIVE[torch.float32]
    assert relative_error(layer(symmetric(features)), symmetric(expected)) < RELATIVE[torch.float32]


@pytest.mark.parametrize("scale", [1e-18, 1e-9, 1e9, 1e18])
def test_the_update_does_not_depend_on_the_scale_of_the_image(scale: float) -> None:
    matrix = symmetric(torch.rand(1, 30, 8))
    layer = RankOneUpdate(8)
    assert relative_error(layer(matrix * scale) / scale, layer(matrix)) < RELATIVE[torch.float32]


def test_a_black_image_stays_zero_with_finite_gradients() -> None:
    layer = RankOneUpdate(6)
    features = torch.zeros(2, 10, 6, requires_grad=True)
    matrix = torch.zeros(2, 6, 6, requires_grad=True)
    for out in (layer.features(features), layer(matrix)):
        assert torch.equal(out, torch.zeros_like(out))
        out.sum().backward()
    for leaf in (features, matrix):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


def test_a_black_image_does_not_disturb_its_neighbours_in_the_batch() -> None:
    layer = RankOneUpdate(6)
    matrices = symmetric(torch.rand(3, 10, 6))
    matrices[1] = 0
    alone = torch.cat([layer(matrix[None]) for matrix in matrices])
    assert relative_error(layer(matrices), alone) < 1e-6


def test_v0_is_fixed_by_the_seed_saved_and_loaded() -> None:
    first, same, other = RankOneUpdate(16, seed=3), RankOneUpdate(16, seed=3), RankOneUpdate(16, seed=4)
    assert torch.equal(first.v0, same.v0)
    assert not torch.equal(first.v0, other.v0)
    other.load_state_dict(first.state_dict())
    assert torch.equal(first.v0, other.v0)


def test_resampling_happens_in_training_only() -> None:
    layer = RankOneUpdate(16, resample=True)
    matrix = symmetric(torch.rand(1, 30, 16))
    assert not torch.equal(layer(matrix), layer(matrix))
    layer.eval()
    assert torch.equal(layer(matrix), layer(matrix))
    assert torch.equal(layer(matrix), RankOneUpdate(16).eval()(matrix))


def test_it_stays_float32_under_autocast() -> None:
    layer, features = RankOneUpdate(12), torch.rand(2, 30, 12)
    matrix = symmetric(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(matrix), layer.features(features)
    assert torch.equal(found[0], layer(matrix))
    assert torch.equal(found[1], layer.features(features))


def test_half_precision_is_worked_on_and_comes_out_in_float32() -> None:
    layer, features = RankOneUpdate(4), torch.rand(1, 9, 4).to(torch.bfloat16)
    matrix = symmetric(features.float()).to(torch.bfloat16)
    for function, rounded in ((layer, matrix), (layer.features, features)):
        assert function(rounded).dtype == torch.float32
        assert relative_error(function(rounded), function(rounded.double())) < RELATIVE[torch.float32]


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_the_second_derivative_is_right(iterations: int) -> None:
    matrix = symmetric(torch.rand(2, 9, 4, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradgradcheck(RankOneUpdate(4, iterations=iterations).double(), matrix)


def test_unit_is_exact_where_squares_would_overflow_or_vanish() -> None:
    v = torch.tensor([[3e30, 4e30], [3e-30, 4e-30], [0.0, 0.0]])
    assert torch.allclose(_unit(v)[0], torch.tensor([[0.6, 0.8], [0.6, 0.8], [0.0, 0.0]]))


def test_wrong_shapes_and_options_are_refused() -> None:
    layer = RankOneUpdate(8)
    with pytest.raises(ValueError, match=r"\(batch, 8, 8\), got shape \(2, 8, 7\)"):
        layer(torch.zeros(2, 8, 7))
    with pytest.raises(ValueError, match=r"\(batch, locations, 8\), got"):
        layer.features(torch.zeros(2, 20, 7))
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 2\], got 2.5"):
        RankOneUpdate(8, eta=2.5)
    with pytest.raises(ValueError, match="iterations must be at least 1, got 0"):
        RankOneUpdate(8, iterations=0)
