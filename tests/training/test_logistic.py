"""The converged classifier against gradient descent in float64 on the rows as they are, slow and without any of its steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rankone.training import logistic
from rankone.training.axes import coordinates, gram, same_products
from rankone.training.embeddings import Rows
from rankone.training.logistic import STRENGTHS, LogisticProblem, fit, solve

CPU = torch.device("cpu")
CLASSES = 3


def drawn(count: int, dim: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Overlapping classes around different means, on numbers of very different spread."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    means = torch.randn(CLASSES, dim, generator=torch.Generator().manual_seed(99))
    rows = means[labels] + 2 * torch.randn(count, dim, generator=generator) + 5
    return (rows * torch.logspace(0, -2, dim)).float(), labels


def table(rows: Tensor) -> Rows:
    return Rows(list(rows.numpy()))


def reference(
    rows: Tensor, labels: Tensor, strength: float, shares: Tensor, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Minimum by gradient descent with Nesterov's momentum, of steps of 1 / (a bound on the curvature); nothing is rotated."""
    rows = rows.double()
    centred = rows - shares @ rows
    decay = strength * float((shares @ (rows - rows.mean(0)).square()).sum())
    targets = F.one_hot(labels, CLASSES).double() * (1 - smoothing) + smoothing / CLASSES
    weight, bias = torch.zeros(CLASSES, rows.shape[1]).double(), torch.zeros(CLASSES).double()
    extended = torch.cat([centred, torch.ones(len(rows), 1)], dim=1)
    step = 1 / (float(torch.linalg.eigvalsh(extended.T @ (shares[:, None] * extended))[-1]) / 2 + decay)
    ahead = weight, bias
    for number in range(4_000):
        before = weight, bias
        weight, bias = ahead
        excess = shares[:, None] * ((centred @ weight.T + bias).softmax(1) - targets)
        weight = weight - step * (excess.T @ centred + decay * weight)
        bias = bias - step * excess.sum(0)
        momentum = number / (number + 3)
        ahead = weight + momentum * (weight - before[0]), bias + momentum * (bias - before[1])
    return weight, bias - weight @ (shares @ rows)


@pytest.mark.parametrize(("count", "dim"), [(30, 12), (12, 30)])
@pytest.mark.parametrize(("balanced", "smoothing"), [(False, 0.0), (True, 0.1)])
def test_it_is_the_minimum_that_gradient_descent_finds(
    count: int, dim: int, balanced: bool, smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More rows than numbers and fewer; equal and unequal weights."""
    monkeypatch.setattr(logistic, "TOLERANCE", 1e-7)
    rows, labels = drawn(count, dim)
    others, _ = drawn(9, dim, seed=1)
    row_weights = 1.0 + (labels == 1).double() if balanced else None
    found = coordinates(table(rows), table(others), CPU)
    solution = solve(LogisticProblem(found.rows, labels, CLASSES, row_weights, smoothing), 1e-2)
    shares = torch.ones(count).double() if row_weights is None else row_weights
    weight, bias = reference(rows, labels, 1e-2, shares / shares.sum(), smoothing)
    ours = found.weights(solution.weight, solution.bias)
    assert solution.record.converged
    for new in (rows, others):  # the logits; classes share a free constant
        expected, got = new.double() @ weight.T + bias, new.double() @ ours[0].T + ours[1]
        assert torch.allclose(
            expected - expected.mean(1, keepdim=True), got - got.mean(1, keepdim=True), rtol=1e-5, atol=1e-5
        )
    assert torch.allclose(solution.logits(found.others), others.double() @ ours[0].T + ours[1], atol=1e-9)


@pytest.mark.parametrize(("count", "dim"), [(20, 7), (7, 20)])
def test_coordinates_and_shorter_rows_keep_every_inner_product(
    count: int, dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rankone.training.axes._BLOCK_NUMBERS", 64)  # several blocks of columns
    rows, _ = drawn(count, dim)
    others, _ = drawn(4, dim, seed=1)
    exact = rows.double() @ rows.double().T
    assert torch.allclose(gram(table(rows), CPU), exact, rtol=1e-12)
    short = same_products(table(rows), CPU)
    assert short.shape == (count, min(count, dim))
    assert torch.allclose(short @ short.T, exact, rtol=1e-9)
    found = coordinates(table(rows), table(others), CPU)
    centred, moved = rows.double() - rows.double().mean(0), others.double() - rows.double().mean(0)
    assert torch.allclose(found.rows @ found.rows.T, centred @ centred.T, atol=1e-9)
    assert torch.allclose(found.others @ found.rows.T, moved @ centred.T, atol=1e-8)


def test_scaling_all_rows_changes_nothing() -> None:
    rows, labels = drawn(30, 12)
    one, thousand = (
        solve(LogisticProblem(coordinates(table(scale * rows), Rows([]), CPU).rows, labels, CLASSES), 1e-3)
        for scale in (1, 1000)
    )
    assert one.record.loss == pytest.approx(thousand.record.loss, rel=1e-4)


def test_the_strength_is_the_one_with_fewest_errors_on_other_rows() -> None:
    """Every attempt starts from the one before it, and still is the minimum: it does not depend on the path."""
    rows, labels = drawn(45, 60, seed=15)
    others, truth = drawn(60, 60, seed=25)
    found = coordinates(table(rows), table(others), CPU)
    problem = LogisticProblem(found.rows, labels, CLASSES)
    best, record = fit(problem, (found.others, truth), [])
    assert [attempt.strength for attempt in record.attempts] == list(STRENGTHS)
    figures = [(attempt.validation_error, attempt.validation_loss) for attempt in record.attempts]
    assert record.final == record.attempts[figures.index(min(figures))]
    assert record.final.validation_loss != min(
        loss or 0 for _, loss in figures
    )  # here, loss and errors choose differently
    assert record.final not in (record.attempts[0], record.attempts[-1])
    for attempt in record.attempts:
        alone = solve(problem, attempt.strength).measured(found.others, truth).record
        assert attempt.loss == pytest.approx(alone.loss, rel=1e-2)
        assert attempt.validation_error == pytest.approx(alone.validation_error, abs=1 / 60)
    assert best.measured(found.others, truth).record.validation_error == record.final.validation_error


def test_without_other_rows_some_choose_and_all_are_fitted() -> None:
    rows, labels = drawn(45, 20)
    problem = LogisticProblem(coordinates(table(rows), Rows([]), CPU).rows, labels, CLASSES)
    solution, record = fit(problem, None, range(9))
    assert record.final.validation_error is None
    assert len(record.attempts) == len(STRENGTHS)
    assert solution.record.loss == pytest.approx(solve(problem, record.final.strength).record.loss, rel=1e-6)
    alone, none = fit(problem, None, [])
    assert (none.attempts, alone.record.strength) == ((), logistic.DEFAULT_STRENGTH)


def test_rows_that_are_all_alike_give_the_frequencies_of_the_classes() -> None:
    labels = torch.tensor([0, 0, 1, 2])
    found = coordinates(table(torch.ones(4, 6)), Rows([]), CPU)
    solution = solve(LogisticProblem(found.rows, labels, CLASSES), 1e-3)
    weight, bias = found.weights(solution.weight, solution.bias)
    assert np.allclose((torch.ones(6).double() @ weight.T + bias).softmax(0), [0.5, 0.25, 0.25], atol=1e-3)


def test_the_limit_of_iterations_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "MAX_ITERATIONS", 5)
    rows, labels = drawn(45, 20)
    record = solve(LogisticProblem(coordinates(table(rows), Rows([]), CPU).rows, labels, CLASSES), 1e-6).record
    assert (record.iterations, record.converged) == (5, False)
    assert record.gradient > logistic.TOLERANCE
