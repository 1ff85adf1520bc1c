"""Slow, independent references in float64, written from the formulas and never from the code under test."""

from __future__ import annotations

import math
from collections.abc import Callable

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


def covariance_by_loops(features_BND: Tensor) -> Tensor:
    """`1/N sum_n (f_n - mu) (f_n - mu)^T`, location by location."""
    means = torch.stack([sum(features_ND) / len(features_ND) for features_ND in features_BND.double()])
    return gram_by_loops(features_BND.double() - means.unsqueeze(1))


def bordered(features_BND: Tensor, *, first: bool) -> Tensor:
    """`[[1, mu^T], [mu, B]]`, or with `first` false `[[B, mu], [mu^T, 1]]`, block by block."""
    gram, dim = gram_by_loops(features_BND), features_BND.shape[2]
    out = torch.ones(len(gram), dim + 1, dim + 1, dtype=torch.float64)
    inner, border = (slice(1, None), 0) if first else (slice(0, dim), dim)
    for image, features_ND in enumerate(features_BND.double()):
        out[image, inner, inner] = gram[image]
        out[image, inner, border] = out[image, border, inner] = features_ND.mean(0)
    return out


def spectral(matrix_DD: Tensor, function: Callable[[float], float]) -> Tensor:
    """`sum_i f(l_i) u_i u_i^T`, eigenvector by eigenvector, of a positive semi-definite matrix."""
    left, values, _ = torch.linalg.svd(matrix_DD.double())
    out = torch.zeros_like(matrix_DD, dtype=torch.float64)
    for index, value in enumerate(values.tolist()):
        out += function(value if value > 1e-13 * float(values[0]) else 0.0) * torch.outer(
            left[:, index], left[:, index]
        )
    return out


def newton_schulz(matrix_DD: Tensor, iterations: int) -> Tensor:
    """The iteration as published, three products a step."""
    trace = sum(matrix_DD.double().diagonal().tolist())
    identity = torch.eye(len(matrix_DD), dtype=torch.float64)
    if not trace:
        return matrix_DD.double()
    y, z = matrix_DD.double() / trace, identity
    for _ in range(iterations):
        t = (3 * identity - z @ y) / 2
        y, z = y @ t, t @ z
    root: Tensor = math.sqrt(trace) * y
    return root


def upper_triangle_by_loops(matrix_DD: Tensor) -> Tensor:
    """Entries (i, j) with j >= i, row by row."""
    rows = matrix_DD.double().tolist()
    return torch.tensor([rows[i][j] for i in range(len(rows)) for j in range(i, len(rows))], dtype=torch.float64)


def low_rank_by_loops(matrix_DD: Tensor, weight_Dm: Tensor) -> Tensor:
    """`p_a^T A p_b` for all pairs of columns."""
    columns = weight_Dm.detach().double().T
    return torch.tensor([float(a @ matrix_DD.double() @ b) for a in columns for b in columns], dtype=torch.float64)


def low_rank_scores(features_Nm: Tensor, positive_Cmh: Tensor, negative_Cmh: Tensor, bias_C: Tensor) -> Tensor:
    """`||U_c^T X||^2 - ||V_c^T X||^2 + b_c` with X = `features_Nm`^T, class by class and column by column."""
    x_mN = features_Nm.double().T
    scores = []
    parameters = (parameter.detach().double() for parameter in (positive_Cmh, negative_Cmh, bias_C))
    for up, down, bias in zip(*parameters, strict=True):
        energy = [sum(float((column @ x_mN).square().sum()) for column in basis.T) for basis in (up, down)]
        scores.append(energy[0] - energy[1] + float(bias))
    return torch.tensor(scores, dtype=torch.float64)
