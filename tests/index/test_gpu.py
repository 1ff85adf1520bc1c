"""What is the GPU gallery's own, here on the CPU, and where there is a GPU, there. What galleries share: test_gallery.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rankone.index import DeviceProblem, Index, Indexes, Item, SearchOptions, Spec, gpu
from rankone.index.database import create_file
from rankone.index.exact import ExactGallery
from rankone.index.gallery import Gallery, RowTable
from rankone.index.gpu import GpuGallery, products, rounding, row_sums
from rankone.index.search import ScoredRow, search
from rankone.index.spec import SearchDevice
from tests.index.oracle import unit

DIM = 24
TYPES = [np.dtype("<f2"), np.dtype("<f4")]
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 8, 8 and then 16 float16 rows, 42 products at a time."""
    for name, value in (("_LEAST_BYTES", 8 * 2 * DIM), ("_MOST_BYTES", 16 * 2 * DIM), ("_SCRATCH_BYTES", 4 * 42)):
        monkeypatch.setattr(gpu, name, value)
    monkeypatch.setattr(gpu, "_LEAST_FOUND", 1)


def heights(gallery: GpuGallery) -> list[int]:
    return [len(block) for block in gallery._blocks]


def twins(
    count: int, stored: np.dtype, dim: int = DIM, device: SearchDevice = "cpu"
) -> tuple[GpuGallery, ExactGallery, RowTable]:
    """The same rows in both galleries, as they are on disk."""
    ours, exact, table = GpuGallery(dim, stored, device), ExactGallery(dim), RowTable()
    for number, vector in enumerate(unit(count, dim).astype(stored)):
        row = table.add(f"{number:05}", number)
        ours.write(row, vector[None])
        exact.write(row, vector[None])
    return ours, exact, table


def answers(
    gallery: Gallery, table: RowTable, queries: np.ndarray, k: int, rows: np.ndarray | None = None
) -> list[list[ScoredRow]]:
    options = [SearchOptions(k)] * len(queries)
    return search(gallery, table.ids, queries, options, table.all_rows if rows is None else rows)


def nearly_agree(ours: list[list[ScoredRow]], theirs: list[list[ScoredRow]]) -> None:
    """Of thousands of neighbours some are nearer to each other than the last bits of a sum: those may change places."""
    for mine, other in zip(ours, theirs, strict=True):
        assert [p.score for p in mine] == pytest.approx([p.score for p in other], abs=1e-6)
        expected = {p.row: p.score for p in other}
        strangers = [p.score for p in mine if p.row not in expected]
        assert strangers == pytest.approx([other[-1].score] * len(strangers), abs=1e-6)
        for p in mine:
            assert p.score == pytest.approx(expected.get(p.row, p.score), abs=1e-6)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("k", [2, 6, 7, 25])
def test_what_is_found_comes_part_by_part(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more products at once than there is room for, and no more rows copied than a small block has; nothing is missed."""
    ours, exact, _ = twins(50, np.dtype("<f2"))
    assert heights(ours) == [8, 8, 16, 16, 16]
    multiplied = []

    def spy(queries: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        assert queries.dtype == rows.dtype == torch.float16
        multiplied.append(len(rows))
        return products(queries, rows)

    monkeypatch.setattr(gpu, "products", spy)
    queries = unit(3, DIM, seed=2).astype(np.float16).astype(np.float32)
    for rows, most in ((np.arange(50), 14), (np.arange(1, 48), 14), (np.flatnonzero(np.arange(50) % 8 != 7), 8)):
        for mine, other in zip(ours.nearest(queries, k, rows), exact.nearest(queries, k, rows), strict=True):
            np.testing.assert_array_equal(mine.rows, other.rows)
        assert max(multiplied) == most
        multiplied.clear()


@pytest.mark.usefixtures("_small")
def test_a_device_with_little_memory_left_gets_smaller_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, row_bytes = GpuGallery(DIM, np.dtype("<f2"), "cpu"), 2 * DIM
    monkeypatch.setattr(gpu, "_RESERVE_BYTES", 5 * row_bytes)
    monkeypatch.setattr(gpu, "free_bytes", lambda _: 20 * row_bytes)
    for row, vector in enumerate(unit(30, DIM).astype(np.float16)):
        ours.write(row, vector[None])
    assert heights(ours) == [8, 8, 8, 8]
    monkeypatch.setattr(gpu, "free_bytes", lambda _: 21 * row_bytes)
    ours.write(30, unit(3, DIM).astype(np.float16))
    assert heights(ours)[-1] == 16

    def full(*_: int, **__: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("nothing left")

    monkeypatch.setattr(gpu, "free_bytes", lambda _: 0)
    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(DeviceProblem, match="no memory for 8 more rows of an index.*nothing left"):
        ours.write(33, unit(20, DIM).astype(np.float16))


@pytest.mark.parametrize("step", ["products", "row_sums"])
def test_a_device_with_no_memory_for_a_search_says_so(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _, table = twins(5, np.dtype("<f2"))

    def full(*_: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("nothing left")

    monkeypatch.setattr(gpu, step, full)
    with pytest.raises(DeviceProblem, match="no memory left for a search: ask for less at once.*nothing left"):
        answers(ours, table, unit(1, DIM), 1)


def test_scores_are_inner_products_of_the_queries_as_they_came() -> None:
    """Not of the rounded ones, which are off by a thousand times as much."""
    ours, _, table = twins(50, np.dtype("<f2"))
    queries, vectors = unit(4, DIM, seed=3), unit(50, DIM).astype(np.float16).astype(np.float64)
    for query, found in zip(queries, ours.nearest(queries, 50, table.all_rows), strict=True):
        np.testing.assert_allclose(found.scores, vectors[found.rows] @ query.astype(np.float64), atol=3e-7)


@pytest.mark.parametrize("dim", [1, 2, 3, 7, 64, 1003])
def test_row_sums_are_the_sums(dim: int) -> None:
    values = torch.from_numpy(np.random.default_rng(dim).standard_normal((5, dim), np.float32))
    expected = values.double().sum(1)
    torch.testing.assert_close(row_sums(values.clone()).double(), expected, atol=1e-5, rtol=0)


def between(dim: int) -> tuple[np.ndarray, np.ndarray]:
    """A query of which every second value is rounded up to float16 and the others down, each by nearly half a step."""
    up = np.arange(dim) % 2 == 0
    values = np.where(up, 1 + 0.51 * 2**-10, 1 + 0.49 * 2**-10)
    return np.asarray(values / dim**0.5, np.float32), up


@pytest.mark.parametrize("dim", [64, 4096])  # whose root is a power of two: the steps stay where they are
def test_the_bound_covers_a_query_rounded_as_badly_as_can_be(dim: int) -> None:
    query, up = between(dim)
    row = np.asarray(np.where(up, 1, -1) / dim**0.5, np.float16)
    left, right = torch.from_numpy(query[None]).half(), torch.from_numpy(row[None])
    exact = float(query.astype(np.float64) @ row.astype(np.float64))
    assert 2**-12 < abs(float(products(left, right)) - exact) < rounding(dim, torch.float16)


def test_the_nearest_is_found_even_if_rounding_ranks_200_others_higher() -> None:
    """200 rows of which the rounded query loses little, and the nearest one, of which it loses more."""
    dim = 64
    up = np.arange(dim) % 2 == 0
    query = np.asarray(np.where(up, 1 + 0.1 * 2**-10, 1 + 0.45 * 2**-10) / dim**0.5, np.float32)
    worse, better = (np.asarray(half * (2 / dim) ** 0.5, np.float16) for half in (up, ~up))
    worse[:30:2] += 2**-13  # a step
    ours, table = GpuGallery(dim, np.dtype("<f2"), "cpu"), RowTable()
    vectors = [worse] * 200 + [better]
    for number, vector in enumerate(vectors):
        ours.write(table.add(f"{number:03}", number), vector[None])
    stored = np.stack(vectors).astype(np.float64)
    rounded = query.astype(np.float16).astype(np.float64)
    assert (stored @ rounded).argmax() < 200 == (stored @ query.astype(np.float64)).argmax()
    assert answers(ours, table, query[None], 1)[0][0].id == "200"


def test_the_bound_is_small() -> None:
    """Beside what tells neighbours apart; that of float32 rows without the query's part."""
    assert 2**-11 < rounding(10_000, torch.float16) < 6.3e-4
    assert 1e-4 < rounding(10_000, torch.float32) < 1.3e-4


@NO_GPU
def test_a_gpu_that_is_not_there_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceProblem, match="torch finds no GPU.*RANKONE_DEVICE=cpu"):
        Indexes(tmp_path, device="cuda")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(DeviceProblem, match="torch.*install it"):
        Indexes(tmp_path, device="cuda")
    Indexes(tmp_path).close()


@NO_GPU
def test_an_exact_index_needs_the_gpu_that_was_asked_for_and_a_compact_one_says_where_it_is(tmp_path: Path) -> None:
    exact, compact = Spec("a" * 64, DIM), Spec("a" * 64, DIM, kind="compact")
    create_file(tmp_path / "exact.sqlite", exact)
    create_file(tmp_path / "compact.sqlite", compact)
    with pytest.raises(DeviceProblem):
        Index(tmp_path / "exact.sqlite", device="cuda")
    index = Index(tmp_path / "compact.sqlite", device="cuda")
    assert index.device == "cpu"
    index.close()


@pytest.mark.gpu
@pytest.mark.parametrize("stored", TYPES, ids=str)
@pytest.mark.parametrize(
    "rows", [np.arange(50_000), np.arange(0, 50_000, 3), np.arange(1_000, 30_000)], ids=["all", "third", "side"]
)
def test_on_a_gpu_the_answers_are_those_of_the_cpu(rows: np.ndarray, stored: np.dtype) -> None:
    ours, exact, table = twins(50_000, stored, 512, "cuda")
    queries = unit(64, 512, seed=1)
    for k in (10, 3000):
        nearly_agree(answers(ours, table, queries, k, rows), answers(exact, table, queries, k, rows))


@pytest.mark.gpu
def test_on_a_gpu_scores_are_those_of_the_cpu_to_the_last_bit() -> None:
    """At full width: elementwise products and sums are rounded alike everywhere."""
    stored, queries = np.dtype("<f2"), unit(5, 10_000, seed=1)
    (here, _, table), (there, _, _) = (twins(500, stored, 10_000, device) for device in ("cpu", "cuda"))
    for mine, other in zip(
        here.nearest(queries, 500, table.all_rows), there.nearest(queries, 500, table.all_rows), strict=True
    ):
        np.testing.assert_array_equal(mine.scores[np.argsort(mine.rows)], other.scores[np.argsort(other.rows)])
    rough, places = there._best(there._on_device(queries), there._blocks[0][:500], 64)
    for found, rows, exact in zip(rough, places, here.nearest(queries, 500, table.all_rows), strict=True):
        scores = exact.scores[np.argsort(exact.rows)][rows]
        assert np.abs(found - scores).max() < rounding(10_000, torch.float16)


@pytest.mark.gpu
def test_a_card_that_is_full_is_no_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_file(tmp_path / "exact.sqlite", Spec("a" * 64, DIM))
    index = Index(tmp_path / "exact.sqlite")
    index.put([Item("a", unit(1, DIM)[0])])
    index.close()
    monkeypatch.setattr(gpu, "_LEAST_BYTES", 1 << 45)
    monkeypatch.setattr(gpu, "_MOST_BYTES", 1 << 45)
    with pytest.raises(DeviceProblem, match="no memory"):
        Index(tmp_path / "exact.sqlite", device="cuda")


@pytest.mark.gpu
def test_an_index_is_searched_on_the_gpu(tmp_path: Path) -> None:
    create_file(tmp_path / "exact.sqlite", Spec("a" * 64, DIM))
    index = Index(tmp_path / "exact.sqlite", device="cuda")
    index.put([Item(str(number), vector) for number, vector in enumerate(unit(100, DIM))])
    assert index.device == "cuda"
    assert isinstance(index._searching._gallery, GpuGallery)
    assert [hits[0].id for hits in index.search(unit(100, DIM), 1)] == [str(number) for number in range(100)]
    index.close()
