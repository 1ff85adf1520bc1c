"""Multinomial logistic regression, solved until it converges: L-BFGS in float64.

    minimize over w (C, r), b (C,):    sum_i a_i CE(w z_i + b, y_i) + lambda / 2 |w|^2,      sum_i a_i = 1

on rows z_i in the coordinates of their principal axes (`training.axes`). There, the Hessian at w = 0 is diagonal: axis k of
variance s_k has (s_k / C + lambda). Dividing by its root makes that Hessian the identity, so the number of iterations does not
depend on how badly conditioned the embeddings are: gradient descent would need as many as the ratio of the largest variance to
the smallest. Source of L-BFGS: Nocedal and Wright, Numerical Optimization, 2006, chapters 3 and 7.

The strength lambda is a multiple of the total variance, so scaling all rows changes nothing. It is chosen from `STRENGTHS`,
strong to weak, each starting from the solution before it, by the errors on rows that are not fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from rankone.model.training_record import FitRecord, SolverRecord

STRENGTHS: Final = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""Multiples of the total variance."""
DEFAULT_STRENGTH: Final = 1e-3
"""Where no rows are left to choose with."""
TOLERANCE: Final = 1e-4
"""The gradient at which a solution counts as converged, as a part of the gradient at zero weights."""
APART: Final = 0.2
"""Share of every class that chooses the strength if no images are held out; see `fit`."""
MAX_ITERATIONS: Final = 1000
_CHUNK: Final = 5
"""Iterations between two looks at the gradient."""
_HISTORY: Final = 20


@dataclass(frozen=True)
class LogisticProblem:
    """What is fitted: rows (n, r) float64, classes (n,), weights of the rows (n,), and the label smoothing."""

    rows: Tensor
    labels: Tensor
    num_classes: int
    row_weights: Tensor | None = None
    """All equal if not given; only their ratios count."""
    smoothing: float = 0.0

    def at(self, chosen: Sequence[int]) -> LogisticProblem:
        """Some of the rows."""
        weights = None if self.row_weights is None else self.row_weights[chosen]
        return LogisticProblem(self.rows[chosen], self.labels[chosen], self.num_classes, weights, self.smoothing)

    @property
    def shares(self) -> Tensor:
        """The weights of the rows with a sum of 1."""
        weights = torch.ones(len(self.rows)).to(self.rows) if self.row_weights is None else self.row_weights
        return weights / weights.sum()

    @property
    def total_variance(self) -> float:
        """The total variance of the rows, whose mean is 0."""
        return float(self.shares @ self.rows.square().sum(dim=1))

    def loss(self, logits: Tensor) -> Tensor:
        """The weighted mean of the cross entropies."""
        losses = F.cross_entropy(logits, self.labels, reduction="none", label_smoothing=self.smoothing)
        return losses @ self.shares


@dataclass(frozen=True)
class Solution:
    """Weights (C, r) and bias (C,) for one strength, and how they were found."""

    weight: Tensor
    bias: Tensor
    record: SolverRecord

    def logits(self, rows: Tensor) -> Tensor:
        """(k, r) -> (k, C)."""
        return rows @ self.weight.T + self.bias

    def measured(self, rows: Tensor, labels: Tensor) -> Solution:
        """The same with its error and loss on these rows in the record."""
        logits = self.logits(rows)
        error, loss = (logits.argmax(1) != labels).double().mean(), F.cross_entropy(logits, labels)
        figures = {"validation_error": float(error), "validation_loss": float(loss)}
        return replace(self, record=self.record.model_copy(update=figures))


def fit(
    problem: LogisticProblem,
    held_out: tuple[Tensor, Tensor] | None,
    apart: Sequence[int],
    between: Callable[[], object] = bool,
) -> tuple[Solution, FitRecord]:
    """The solution with the strength that makes the fewest errors on rows that are not fitted; of equal ones the lowest loss.

    Args:
        problem: what is fitted.
        held_out: rows and labels that choose the strength.
        apart: without these, the rows of the problem that choose it; the solution is then fitted to all rows again.
        between: is called every few iterations, and may raise.
    """
    if held_out is None and not apart:
        solution = solve(problem, DEFAULT_STRENGTH, between=between)
        return solution, FitRecord(final=solution.record, chosen_by="no images were left to choose it with")
    inner = problem
    if held_out is None:
        held_out = problem.rows[list(apart)], problem.labels[list(apart)]
        inner = problem.at(sorted({*range(len(problem.rows))} - {*apart}))
    tried, found = [], None
    for strength in STRENGTHS:  # each from where the one before it ended
        found = solve(inner, strength, found, between)
        tried.append(found.measured(*held_out))
    attempts = tuple(solution.record for solution in tried)
    best = min(tried, key=lambda one: (one.record.validation_error, one.record.validation_loss))
    if inner is problem:
        return best, FitRecord(attempts=attempts, final=best.record, chosen_by="the images that select")
    solution = solve(problem, best.record.strength, between=between)
    return solution, FitRecord(attempts=attempts, final=solution.record, chosen_by="a part of the training images")


def solve(
    problem: LogisticProblem, strength: float, start: Solution | None = None, between: Callable[[], object] = bool
) -> Solution:
    """The solution for one strength; not converged after `MAX_ITERATIONS`, which its record says."""
    rows, shares = problem.rows, problem.shares
    variances = shares @ rows.square()
    decay = strength * problem.total_variance
    curvatures = variances / problem.num_classes + decay
    scale = torch.where(curvatures > 0, curvatures, 1).sqrt()
    scaled, penalties = rows / scale, decay / scale.square()
    weight = torch.zeros(problem.num_classes, rows.shape[1], dtype=rows.dtype, device=rows.device)
    bias = torch.zeros(problem.num_classes, dtype=rows.dtype, device=rows.device)
    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=_CHUNK, history_size=_HISTORY, tolerance_grad=0, tolerance_change=0,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = problem.loss(F.linear(scaled, weight, bias)) + (penalties * weight.square()).sum() / 2
        loss.backward()
        return loss

    objective()
    limit = TOLERANCE * _gradient(parameters)
    if start is not None:
        with torch.no_grad():
            weight.copy_(start.weight * scale)
            bias.copy_(start.bias)
        objective()
    iterations = 0
    while _gradient(parameters) > limit and iterations < MAX_ITERATIONS:
        between()
        optimizer.step(objective)
        iterations += _CHUNK
        objective()
    with torch.no_grad():
        logits = F.linear(scaled, weight, bias)
        record = SolverRecord(
            strength=strength,
            iterations=iterations,
            gradient=_gradient(parameters) * TOLERANCE / limit if limit else 0.0,
            converged=_gradient(parameters) <= limit,
            loss=float(problem.loss(logits)),
            train_error=float((logits.argmax(1) != problem.labels).double().mean()),
        )
        return Solution((weight / scale).detach(), bias.detach(), record)


def _gradient(parameters: Sequence[Tensor]) -> float:
    """The length of the gradient in the scaled coordinates."""
    return float(torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm())
