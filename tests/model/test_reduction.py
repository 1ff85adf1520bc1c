from __future__ import annotations

import numpy as np
import pytest
import torch

from rankone.model.network import ShortEmbedding
from rankone.model.reduction import (
    Doubles,
    Floats,
    Ints,
    ReductionError,
    components,
    lengths_up_to,
    shorten,
    whitening,
    within_class,
)

NUM_CLASSES, PER_CLASS = 6, 5


def drawn(dim: int, seed: int = 0) -> tuple[Floats, Ints]:
    """Embeddings of length 1 that vary more in some directions, within their classes and between them."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(NUM_CLASSES, dim)) * np.geomspace(3, 0.1, dim)
    labels = np.repeat(np.arange(NUM_CLASSES), PER_CLASS)
    rows = 1 + centres[labels] + rng.normal(size=(len(labels), dim)) * np.linspace(0.2, 1.5, dim)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def cosines(short: Doubles) -> Doubles:
    unit = short / np.linalg.norm(short, axis=1, keepdims=True)
    return np.asarray(unit @ unit.T)


def inverse_root(matrix: Doubles) -> Doubles:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors @ np.diag(values**-0.5) @ vectors.T)


@pytest.mark.parametrize("dim", [12, 200])  # fewer numbers than images, and more
def test_within_class_whitening_is_that_of_the_formulas_in_float64(dim: int) -> None:
    """Against a slow reference, which whitens by the symmetric root in place of Cholesky's factor: the same up to rotation."""
    embeddings, labels = drawn(dim)
    basis = components(embeddings)
    reduction = basis.reduction(within_class(basis.rows, labels, 0.1))

    exact = embeddings.astype(np.float64)
    centred = exact - exact.mean(axis=0)
    _, values, right = np.linalg.svd(centred, full_matrices=False)
    axes = right[values > 1e-5 * values[0]]
    rows = centred @ axes.T
    scatter = np.zeros((len(axes), len(axes)))
    for row, label in zip(rows, labels, strict=True):
        away = row - rows[labels == label].mean(axis=0)
        scatter += np.outer(away, away) / len(rows)
    white = rows @ inverse_root(scatter + 0.1 * np.mean(np.diag(scatter)) * np.eye(len(axes)))
    assert np.abs(cosines(reduction(embeddings).astype(np.float64)) - cosines(white)).max() < 1e-5

    strength = np.linalg.svd(white, compute_uv=False)[:3]
    _, _, directions = np.linalg.svd(white, full_matrices=False)
    assert strength[0] > 1.01 * strength[1] > 1.01 * strength[2]  # so that the directions are not arbitrary
    found = shorten(reduction(embeddings), 3).astype(np.float64)
    assert np.abs(cosines(found) - cosines(white @ directions[:3].T)).max() < 1e-4


@pytest.mark.parametrize("dim", [12, 200])
def test_pca_whitening_is_that_of_the_formula(dim: int) -> None:
    embeddings, _ = drawn(dim)
    basis = components(embeddings)
    reduction = basis.reduction(whitening(basis.rows, 0.3))

    centred = embeddings.astype(np.float64) - embeddings.astype(np.float64).mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    count = int((values > 1e-5 * values[0]).sum())
    variances = values[:count] ** 2 / len(centred)
    expected = left[:, :count] * values[:count] / np.sqrt(variances + 0.3 * variances.mean())
    assert np.abs(cosines(reduction(embeddings).astype(np.float64)) - cosines(expected)).max() < 1e-5


def test_all_directions_vary_alike_within_a_class() -> None:
    embeddings, labels = drawn(12)
    basis = components(embeddings)
    z = basis.rows @ within_class(basis.rows, labels, 0.0)
    inner = np.stack([row - z[labels == label].mean(axis=0) for row, label in zip(z, labels, strict=True)])
    assert np.allclose(inner.T @ inner / len(z), np.eye(z.shape[1]), atol=1e-8)


def test_short_embeddings_are_nested_of_length_one_and_zero_for_a_black_image() -> None:
    embeddings, labels = drawn(200)
    basis = components(embeddings)
    reduction = basis.reduction(within_class(basis.rows, labels, 0.1))
    alone = basis.reduction(within_class(basis.rows, labels, 0.1, dim=4))
    short = reduction(np.concatenate([embeddings, np.zeros((1, 200), np.float32)]))
    assert short.dtype == np.float32
    assert np.allclose(np.linalg.norm(short[:-1], axis=1), 1)
    assert not short[-1].any()
    assert not shorten(short, 4)[-1].any()
    assert np.allclose(shorten(short, 4)[:-1], alone(embeddings), atol=1e-5)


def test_the_layer_computes_what_the_arrays_do() -> None:
    embeddings, labels = drawn(200)
    basis = components(embeddings)
    reduction = basis.reduction(within_class(basis.rows, labels, 0.1))
    layer = ShortEmbedding.of(reduction)
    rows = np.concatenate([embeddings, np.zeros((1, 200), np.float32)])
    assert np.abs(layer(torch.from_numpy(rows)).numpy() - reduction(rows)).max() < 1e-5
    assert layer.double()(torch.from_numpy(rows).double()).dtype == torch.float64


def test_other_embeddings_are_projected_as_the_map_does_it() -> None:
    embeddings, labels = drawn(200)
    others, _ = drawn(200, seed=1)
    basis = components(embeddings, max_components=10)
    whiten = within_class(basis.rows, labels, 0.1)
    assert whiten.shape == (10, 10)
    short = basis.project(others) @ whiten
    assert np.allclose(short / np.linalg.norm(short, axis=1, keepdims=True), basis.reduction(whiten)(others), atol=1e-4)


def test_what_cannot_be_learned_from_is_refused() -> None:
    embeddings, _ = drawn(12)
    basis = components(embeddings)
    with pytest.raises(ReductionError, match="two images that differ"):
        within_class(basis.rows, np.arange(len(embeddings)), 0.1)
    with pytest.raises(ReductionError, match="all alike"):
        components(np.repeat(embeddings[:1], 5, axis=0))


def test_lengths_end_with_the_longest() -> None:
    assert lengths_up_to(512) == (16, 32, 64, 128, 256, 512)
    assert lengths_up_to(95) == (16, 32, 64, 95)
    assert lengths_up_to(16) == (16,)
    assert lengths_up_to(3) == (3,)
