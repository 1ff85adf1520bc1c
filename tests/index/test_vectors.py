"""Vectors from disk as float32."""

from __future__ import annotations

import numpy as np
import pytest

from rankone.index.gallery import as_floats, inner_products

EVERY_HALF = np.arange(1 << 16, dtype=np.uint16).view(np.float16)


@pytest.mark.parametrize("dim", [1, 7, 8, 1003, 1 << 16])
def test_every_half_is_the_number_it_was(dim: int) -> None:
    """Subnormal, infinite and negative zero too; what is no number stays none."""
    halves = np.resize(EVERY_HALF, (-(-len(EVERY_HALF) // dim), dim))
    floats = as_floats(halves)
    assert floats.dtype == np.float32
    np.testing.assert_array_equal(floats, halves.astype(np.float32))
    np.testing.assert_array_equal(np.signbit(floats), np.signbit(halves))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_it_is_written_where_it_belongs(dtype: type) -> None:
    """From rows that do not lie side by side, too, and from none."""
    stored: np.ndarray = np.random.default_rng(0).standard_normal((9, 24)).astype(dtype)
    block = np.zeros((12, 24), np.float32)
    as_floats(stored[::2], block[3:8])
    np.testing.assert_array_equal(block[3:8], stored[::2].astype(np.float32))
    assert not block[:3].any()
    assert not block[8:].any()
    assert as_floats(stored[:0]).shape == (0, 24)


@pytest.mark.parametrize("dim", [1, 7, 24, 1003])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_inner_products_are_those_of_the_rows_whoever_else_is_there(dtype: type, dim: int) -> None:
    draw = np.random.default_rng(0)
    query: np.ndarray = draw.standard_normal(dim).astype(np.float32)
    stored: np.ndarray = draw.standard_normal((40, dim)).astype(dtype)
    scores = inner_products(query, stored)
    np.testing.assert_allclose(scores, stored.astype(np.float64) @ query, atol=1e-5 * dim**0.5)
    order = draw.permutation(40)[:17]
    np.testing.assert_array_equal(inner_products(query, stored[order]), scores[order])
    assert inner_products(query, stored[:0]).shape == (0,)
