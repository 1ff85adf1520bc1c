"""Exact search of batches: the best of products of matrices, and the BLAS that multiplies them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from rankone.index import exact as module
from rankone.index.blas import core_of
from rankone.index.exact import ExactGallery, _best_of_products, _multiplied_by
from tests.index.oracle import unit

DIM = 40


@pytest.mark.parametrize(("num_rows", "k"), [(1, 1), (7, 7), (100, 3), (5000, 26), (4999, 10), (3000, 2000)])
@pytest.mark.parametrize("is_crowd", [False, True])
def test_the_best_of_products_are_those_of_all_scores(num_rows: int, k: int, is_crowd: bool) -> None:
    """Against float64, for rows in no order, and for rows of which the nearest lie side by side."""
    queries, rows = unit(30, DIM, seed=1).astype(np.float32), unit(num_rows, DIM, seed=2).astype(np.float32)
    if is_crowd:
        rows = np.concatenate([queries[:1] + 0.01 * rows[: num_rows // 2], rows[num_rows // 2 :]])
    scores, places = _best_of_products(queries, _multiplied_by(queries), rows, k)
    wanted = queries.astype(np.float64) @ rows.T.astype(np.float64)
    assert scores.shape == places.shape == (30, k)
    np.testing.assert_allclose(scores, -np.sort(-wanted, axis=1)[:, :k], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(wanted, places, 1), scores, atol=1e-6)
    assert all(len(set(found)) == k for found in places.tolist())


def test_equal_rows_are_found_without_memory_for_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where most rows tie with the k-th best, as empty ones do, faiss's heaps choose."""
    queries, rows = unit(30, DIM, seed=1).astype(np.float32), np.zeros((3000, DIM), np.float32)
    rows[7] = queries[0]
    asked, knn = list[int](), faiss.knn

    def counted(*args: Any, **options: Any) -> Any:
        asked.append(1)
        return knn(*args, **options)

    monkeypatch.setattr(faiss, "knn", counted)
    scores, places = _best_of_products(queries, _multiplied_by(queries), rows, 5)
    assert asked == [1]
    assert (places[0, 0], scores[0, 0]) == (7, pytest.approx(1))
    assert scores[0, 1:].tolist() == [0] * 4


@pytest.mark.parametrize("num_threads", [1, 3])
def test_batches_find_what_single_queries_find_in_whatever_pieces(
    monkeypatch: pytest.MonkeyPatch, num_threads: int
) -> None:
    queries, vectors = unit(50, DIM, seed=1).astype(np.float32), unit(2000, DIM, seed=2).astype(np.float16)
    gallery = ExactGallery(DIM)
    gallery.write(0, vectors)
    rows = np.flatnonzero(np.arange(2000) % 7)
    alone = [gallery.nearest(query[None], 10, rows)[0] for query in queries]
    monkeypatch.setattr(module, "_PAIRS", 50 * 300)
    monkeypatch.setattr(module, "_DIVIDED_BYTES", 0)
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(num_threads)
    try:
        together = gallery.nearest(queries, 10, rows)
    finally:
        faiss.omp_set_num_threads(before)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_array_equal(one.scores, other.scores)


@pytest.mark.parametrize(
    ("cpuinfo", "core"),
    [
        ("model\t\t: 207\nflags\t\t: fma avx2 avx512f avx512dq avx512cd avx512bw avx512vl amx_bf16\n", "SKYLAKEX"),
        ("flags\t\t: fma avx avx2\nbugs\t\t: none\n", "HASWELL"),
        ("flags\t\t: fma avx avx2 avx512f\n", "HASWELL"),
        ("flags\t\t: sse2 avx\n", None),
        ("Features\t: fp asimd\n", None),
    ],
)
def test_the_core_is_the_best_that_the_processor_can_be(cpuinfo: str, core: str | None) -> None:
    assert core_of(cpuinfo) == core


def test_faiss_multiplies_as_this_processor_can_and_the_environment_stays_as_it_was() -> None:
    """OpenBLAS names its core when it is loaded: numpy's, and faiss's."""
    code = "import rankone.index, os; print(os.environ.get('OPENBLAS_CORETYPE'))"
    chosen = core_of(Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    if chosen is None:
        pytest.skip("OpenBLAS chooses by itself")
    for given, core in ((None, chosen), ("Nehalem", "Nehalem")):
        env = {**os.environ, "OPENBLAS_VERBOSE": "2", **({"OPENBLAS_CORETYPE": given} if given else {})}
        found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        cores = [line.removeprefix("Core: ").upper() for line in found.stderr.splitlines() if line.startswith("Core: ")]
        assert cores[-1] == core.upper()
        assert found.stdout.strip() == str(given)
