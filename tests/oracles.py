"""Slow, independent references in float64, written from the formulas and never from the code under test."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gram_by_loops(features_BND: Tensor) -> Tensor:
    """`1/N sum_n f_n f_n^T`, location by location."""
    out = torch.zeros(features_BND.shape[0], features_BND.shape[2], features_BND.shape[2], dtype=torch.float64)
    for image, features_ND in enumerate(features_BND.double()):
        for row_D in features_ND:
            out[image] += torch.outer(row_D, row_D)
    return out / features_BND.shape[1]


def run_on_features(features_ND: Tensor, v0: Tensor, eta: float, iterations: int) -> Tensor:
    """Algorithm 3 for one image, as printed: un-normalized iterates."""
    f, v = features_ND.double(), v0.double()
    for _ in range(iterations):
        v = f.T @ (f @ v)
    return f - eta * torch.outer(f @ v, v) / (v @ v)


def tensor_sketch_by_fft(
    features_ND: Tensor, h: tuple[Tensor, Tensor], s: tuple[Tensor, Tensor], out_dim: int
) -> Tensor:
    """Algorithm 1: for every location two count sketches, convolved in the frequency domain; then the sum."""
    total = torch.zeros(out_dim, dtype=torch.float64)
    for row_D in features_ND.double():
        spectrum = torch.ones(out_dim // 2 + 1, dtype=torch.complex128)
        for hashes, signs in zip(h, s, strict=True):
            sketch = torch.zeros(out_dim, dtype=torch.float64)
            for channel, value in enumerate(row_D.tolist()):
                sketch[hashes[channel]] += float(signs[channel]) * value
            spectrum = spectrum * torch.fft.rfft(sketch)
        total += torch.fft.irfft(spectrum, n=out_dim)
    return total


def tensor_sketch_by_loops(
    matrix_DD: Tensor, h: tuple[Tensor, Tensor], s: tuple[Tensor, Tensor], out_dim: int
) -> Tensor:
    """The count sketch of `vec(matrix)`, entry by entry."""
    out = [0.0] * out_dim
    for i, row in enumerate(matrix_DD.double().tolist()):
        for j, value in enumerate(row):
            out[(int(h[0][i]) + int(h[1][j])) % out_dim] += float(s[0][i]) * float(s[1][j]) * value
    return torch.tensor(out, dtype=torch.float64)


def random_maclaurin_by_locations(features_ND: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    """Algorithm 2: `sum_n (W1 f_n) * (W2 f_n) / sqrt(d)`."""
    total = torch.zeros(w1.shape[0], dtype=torch.float64)
    for row_D in features_ND.double():
        total += (w1.double() @ row_D) * (w2.double() @ row_D)
    return total / math.sqrt(w1.shape[0])


def embedding_of(vector_d: Tensor) -> Tensor:
    """ssqrt, then l2, number by number."""
    roots = [math.copysign(math.sqrt(abs(x)), x) for x in vector_d.double().tolist()]
    length = math.sqrt(math.fsum(x * x for x in roots))
    return torch.tensor([x / length for x in roots] if length else roots, dtype=torch.float64)
