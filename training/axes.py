"""Transforms rows on disk to their principal axes, for few rows of many numbers.

With `X` (n, d) the rows less their mean and `X = U S V^T`, the coordinates `X V = U S` (n, r), r <= min(n, d), keep every
inner product, and weights `w` on them are the weights `w V^T` on the rows. For n < d everything follows from the Gram matrix
`X X^T`, which is summed over blocks of columns, so that d is limited by the disk and not by memory. In float64: the Gram matrix
squares the condition number.

Shapes: n rows, m other rows, d numbers of a row, r axes, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from rankone.training.embeddings import Rows

_BLOCK_NUMBERS: Final = 1 << 24
"""Numbers of a block of columns: 128 MB in float64."""
_SMALLEST: Final = 1e-12
"""Axes with a smaller share of the squares of all numbers are rounding errors of float64 sums."""


@dataclass(frozen=True)
class Coordinates:
    """Of rows (n, r) and of other rows (m, r); `weights` takes weights and bias on them back to the rows."""

    rows: Tensor
    others: Tensor
    weights: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    """(C, r) and (C,) -> (C, d) and (C,)."""


def coordinates(rows: Rows, others: Rows, device: torch.device) -> Coordinates:
    """The coordinates of `rows` on their principal axes, and of `others` on the same axes; float64 on `device`."""
    whole = rows + others
    return _by_rows(whole, len(rows), device) if len(rows) < rows.dim else _by_columns(whole, len(rows), device)


def same_products(rows: Rows, device: torch.device) -> Tensor:
    """Shorter rows (n, at most n) with the same inner products, float64; as they are if d <= n.

    Whatever depends on inner products alone, such as retrieval and linear maps, is the same on them.
    """
    if rows.dim <= len(rows):
        return _all(rows, device)
    values, vectors = torch.linalg.eigh(gram(rows, device))
    short: Tensor = vectors * values.clamp_min(0).sqrt()
    return short


def gram(rows: Rows, device: torch.device) -> Tensor:
    """All inner products of the rows (n, n), float64."""
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=device)
    for block in _blocks(rows, device):
        total.addmm_(block, block.T)
    return total


def _by_rows(whole: Rows, count: int, device: torch.device) -> Coordinates:
    """From the Gram matrix of all rows, of which the first `count` give mean and axes."""
    products = gram(whole, device)
    total = products[:count, :count].trace()
    products -= products[:count].mean(dim=0)
    products -= products[:, :count].mean(dim=1, keepdim=True)
    lengths, vectors = _axes(products[:count, :count], total)

    def weights(on_axes: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        duals, shift, found = (on_axes / lengths) @ vectors.T, torch.zeros_like(bias), []
        for block in _blocks(whole, device):
            weight = duals @ block[:count]  # the duals sum to 0, so the mean needs no subtraction
            shift = shift + weight @ block[:count].mean(dim=0)
            found.append(weight)
        return torch.cat(found, dim=1), bias - shift

    return Coordinates(vectors * lengths, products[count:, :count] @ (vectors / lengths), weights)


def _by_columns(whole: Rows, count: int, device: torch.device) -> Coordinates:
    """From the covariance of the numbers, where there are no more of them than rows."""
    numbers = _all(whole, device)
    mean, total = numbers[:count].mean(dim=0), numbers[:count].square().sum()
    numbers -= mean
    _, vectors = _axes(numbers[:count].T @ numbers[:count], total)

    def weights(on_axes: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        weight = on_axes @ vectors.T
        return weight, bias - weight @ mean

    return Coordinates(numbers[:count] @ vectors, numbers[count:] @ vectors, weights)


def _axes(products: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values (r,), and the singular vectors on the side of `products`; none if all rows are alike."""
    values, vectors = torch.linalg.eigh(products)
    kept = values > _SMALLEST * total
    return values[kept].sqrt(), vectors[:, kept]


def _all(rows: Rows, device: torch.device) -> Tensor:
    return rows.columns(0, rows.dim).to(device, torch.float64)


def _blocks(rows: Rows, device: torch.device) -> Iterator[Tensor]:
    width = max(1, _BLOCK_NUMBERS // len(rows))
    for start in range(0, rows.dim, width):
        yield rows.columns(start, start + width).to(device, torch.float64)
