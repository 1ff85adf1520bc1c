"""The gallery of a GPU, here on the CPU: all of it but one product of matrices; and, where there is a GPU, there."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rankone.index import DeviceProblem, Index, Indexes, Item, Spec, gpu
from rankone.index.database import Device, make
from rankone.index.exact import Matrix
from rankone.index.gallery import Directory, Gallery, searched_on
from rankone.index.gpu import GpuMatrix, products, rounding, row_sums
from rankone.index.search import Place, Scope, Wish, ranked
from tests.index.oracle import unit

DIM = 24
TYPES = [np.dtype("<f2"), np.dtype("<f4")]
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 8, 8 and then 16 float16 rows or half as many float32 ones, 42 products at a time, of 10 terms, 5 pairs."""
    monkeypatch.setattr(gpu, "_LEAST_BYTES", 8 * 2 * DIM)
    monkeypatch.setattr(gpu, "_MOST_BYTES", 16 * 2 * DIM)
    monkeypatch.setattr(gpu, "_SCRATCH_BYTES", 4 * 42)
    monkeypatch.setattr(gpu, "_LEAST", 1)
    monkeypatch.setattr(gpu, "_PAIRS", 5)
    monkeypatch.setattr(gpu, "TERMS", 10)


def twins(count: int, stored: np.dtype, dim: int = DIM, device: Device = "cpu") -> tuple[GpuMatrix, Matrix, Directory]:
    """The same rows in both galleries, as they are on disk."""
    ours, matrix, directory = GpuMatrix(dim, stored, device), Matrix(dim), Directory()
    for number, vector in enumerate(unit(count, dim).astype(stored)):
        row = directory.place(f"{number:05}", number)
        ours.set(row, vector[None])
        matrix.set(row, vector[None])
    return ours, matrix, directory


def agree(ours: list[list[Place]], theirs: list[list[Place]]) -> None:
    """The same rows in the same order, with scores that differ in the last bits of a sum."""
    assert [[place.row for place in found] for found in ours] == [[place.row for place in found] for found in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert [p.score for p in mine] == pytest.approx([p.score for p in other], abs=1e-6)


def nearly_agree(ours: list[list[Place]], theirs: list[list[Place]]) -> None:
    """Of thousands of neighbours some are nearer to each other than the last bits of a sum: those may change places."""
    for mine, other in zip(ours, theirs, strict=True):
        assert [p.score for p in mine] == pytest.approx([p.score for p in other], abs=1e-6)
        expected = {p.row: p.score for p in other}
        strangers = [p.score for p in mine if p.row not in expected]
        assert strangers == pytest.approx([other[-1].score] * len(strangers), abs=1e-6)
        for place in mine:
            assert place.score == pytest.approx(expected.get(place.row, place.score), abs=1e-6)


def answers(
    gallery: Gallery, directory: Directory, queries: np.ndarray, k: int, rows: np.ndarray | int
) -> list[list[Place]]:
    return ranked(gallery, directory, queries, [Wish(k)] * len(queries), Scope(rows))


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("stored", TYPES, ids=str)
def test_rows_stay_dense_and_found_through_any_changes(stored: np.dtype) -> None:
    ours, matrix, directory = twins(50, stored)
    draw = random.Random(1)
    for turn in range(60):
        item_id = f"{draw.randint(0, 70):05}"
        if draw.random() < 0.5:
            (vector,) = unit(1, DIM, turn + 100).astype(stored)
            row = directory.place(item_id, 1000 + turn)
            ours.set(row, vector[None])
            matrix.set(row, vector[None])
        elif (move := directory.remove(item_id)) is not None:
            ours.move(*move)
            matrix.move(*move)
        if turn % 3 == 0:  # else there may be room for more
            ours.fit(len(directory))
            held = ours._blocks.heights
            assert ours.span == (sum(held[:-1]) + 1, sum(held))
            assert ours.span[0] <= len(directory) <= ours.span[1]
        queries = unit(2, DIM, turn)
        agree(*(answers(gallery, directory, queries, 5, len(directory)) for gallery in (ours, matrix)))


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("k", [1, 3, 60])
@pytest.mark.parametrize("stored", TYPES, ids=str)
@pytest.mark.parametrize("chosen", [[0], [49], list(range(50)), list(range(8, 24)), [1, 3, 4, 5, 6, 7, 8, 30, 31, 49]])
def test_only_chosen_rows_take_part(chosen: list[int], stored: np.dtype, k: int) -> None:
    ours, matrix, directory = twins(50, stored)
    queries, rows = unit(7, DIM, seed=9), np.array(chosen)
    agree(answers(ours, directory, queries, k, rows), answers(matrix, directory, queries, k, rows))


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("k", [2, 6, 7, 50])
def test_what_is_found_comes_part_by_part(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more products at once than there is room for, and no more rows gathered than a small block has; nothing is missed."""
    ours, matrix, _ = twins(50, np.dtype("<f2"))
    assert ours._blocks.heights == [8, 8, 16, 16, 16]
    multiplied = []

    def spy(queries: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        assert queries.dtype == rows.dtype == torch.float16
        multiplied.append(len(rows))
        return products(queries, rows)

    monkeypatch.setattr(gpu, "products", spy)
    queries = unit(3, DIM, seed=2).astype(np.float16).astype(np.float32)
    for rows, most in ((50, 14), (np.arange(1, 48), 14), (np.flatnonzero(np.arange(50) % 8 != 7), 8)):
        _, found = ours.nearest(queries, min(k, 25), rows)
        _, expected = matrix.nearest(queries, min(k, 25), rows)
        np.testing.assert_array_equal(found, expected)
        assert max(multiplied) == most
        multiplied.clear()


@pytest.mark.usefixtures("_small")
def test_a_device_with_little_memory_left_gets_smaller_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, row_bytes = GpuMatrix(DIM, np.dtype("<f2"), "cpu"), 2 * DIM
    monkeypatch.setattr(gpu, "_RESERVE_BYTES", 5 * row_bytes)
    monkeypatch.setattr(gpu, "free_bytes", lambda _: 20 * row_bytes)
    for row, vector in enumerate(unit(30, DIM).astype(np.float16)):
        ours.set(row, vector[None])
    assert ours._blocks.heights == [8, 8, 8, 8]
    monkeypatch.setattr(gpu, "free_bytes", lambda _: 21 * row_bytes)
    ours.set(30, unit(3, DIM).astype(np.float16))
    assert ours._blocks.heights[-1] == 16

    def full(*_: int, **__: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("nothing left")

    monkeypatch.setattr(gpu, "free_bytes", lambda _: 0)
    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(DeviceProblem, match="no memory for 8 more rows of an index.*nothing left"):
        ours.set(33, unit(20, DIM).astype(np.float16))


def test_a_device_with_no_memory_for_a_search_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _, _ = twins(5, np.dtype("<f2"))

    def full(*_: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("nothing left")

    for name, ask in (
        ("products", lambda: ours.nearest(unit(1, DIM), 1, 5)),
        ("row_sums", lambda: ours.scores(unit(1, DIM), np.zeros((1, 1), np.int64))),
    ):
        monkeypatch.setattr(gpu, name, full)
        with pytest.raises(DeviceProblem, match="no memory left for a search: ask for less at once.*nothing left"):
            ask()


@pytest.mark.usefixtures("_small")
def test_scores_are_inner_products_of_the_queries_as_they_came() -> None:
    ours, _, _ = twins(50, np.dtype("<f2"))
    queries = unit(4, DIM, seed=3)
    rows = np.random.default_rng(0).integers(0, 50, (4, 9))
    vectors = unit(50, DIM).astype(np.float16).astype(np.float64)
    expected = np.einsum("md,mkd->mk", queries.astype(np.float64), vectors[rows])
    np.testing.assert_allclose(ours.scores(queries, rows), expected, atol=3e-7)


def test_a_score_does_not_depend_on_place_or_company() -> None:
    """The same to the last bit, alone and in a batch, in whichever row."""
    dim, (query, vector) = 1003, unit(2, 1003, seed=5)
    seen = set()
    for row, batch, k in ((0, 1, 1), (7, 3, 2), (18, 13, 19)):
        ours = GpuMatrix(dim, np.dtype("<f2"), "cpu")
        for place, other in enumerate(unit(19, dim, seed=row)):
            ours.set(place, (vector if place == row else other)[None])
        scores = ours.scores(np.repeat(query[None], batch, 0), np.full((batch, k), row))
        seen |= set(scores.ravel().tolist())
    assert len(seen) == 1


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
    ours = GpuMatrix(dim, np.dtype("<f2"), "cpu")
    ours.set(0, row[None])
    rough, numbers = ours.nearest(query[None], 1, 1)
    exact = float(query.astype(np.float64) @ row.astype(np.float64))
    assert 2**-12 < abs(float(rough[0, 0]) - exact) < ours.bound(0)
    assert ours.scores(query[None], numbers)[0, 0] == pytest.approx(exact, abs=1e-6)


def test_who_is_nearest_is_found_behind_all_whom_rounding_prefers() -> None:
    """200 rows of which the rounded query loses little, and the nearest one, of which it loses more."""
    dim = 64
    up = np.arange(dim) % 2 == 0
    query = np.asarray(np.where(up, 1 + 0.1 * 2**-10, 1 + 0.45 * 2**-10) / dim**0.5, np.float32)
    worse, better = (np.asarray(half * (2 / dim) ** 0.5, np.float16) for half in (up, ~up))
    worse[:30:2] += 2**-13  # a step
    ours, directory = GpuMatrix(dim, np.dtype("<f2"), "cpu"), Directory()
    vectors = [worse] * 200 + [better]
    for number, vector in enumerate(vectors):
        ours.set(directory.place(f"{number:03}", number), vector[None])
    stored = np.stack(vectors).astype(np.float64)
    rounded = query.astype(np.float16).astype(np.float64)
    assert (stored @ rounded).argmax() < 200 == (stored @ query.astype(np.float64)).argmax()
    assert answers(ours, directory, query[None], 1, 201)[0][0].id == "200"


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
    make(tmp_path / "exact.sqlite", exact)
    make(tmp_path / "compact.sqlite", compact)
    with pytest.raises(DeviceProblem):
        Index(tmp_path / "exact.sqlite", device="cuda")
    index = Index(tmp_path / "compact.sqlite", device="cuda")
    assert (index.device, searched_on(exact, "cuda")) == ("cpu", "cuda")
    index.close()


@pytest.mark.gpu
@pytest.mark.parametrize("stored", TYPES, ids=str)
@pytest.mark.parametrize(
    "rows", [50_000, np.arange(0, 50_000, 3), np.arange(1_000, 30_000)], ids=["all", "third", "side"]
)
def test_on_a_gpu_the_answers_are_those_of_the_cpu(rows: np.ndarray | int, stored: np.dtype) -> None:
    ours, matrix, directory = twins(50_000, stored, 512, "cuda")
    queries = unit(64, 512, seed=1)
    for k in (10, 3000):
        nearly_agree(answers(ours, directory, queries, k, rows), answers(matrix, directory, queries, k, rows))


@pytest.mark.gpu
def test_on_a_gpu_scores_are_those_of_the_cpu_to_the_last_bit() -> None:
    """At full width: elementwise products and sums are rounded alike everywhere."""
    stored, queries = np.dtype("<f2"), unit(5, 10_000, seed=1)
    rows = np.random.default_rng(0).integers(0, 500, (5, 40))
    here, there = (twins(500, stored, 10_000, device)[0] for device in ("cpu", "cuda"))
    np.testing.assert_array_equal(here.scores(queries, rows), there.scores(queries, rows))
    rough, numbers = there.nearest(queries, 64, 500)
    assert np.abs(rough - here.scores(queries, numbers)).max() < there.bound(0)


@pytest.mark.gpu
def test_a_card_that_is_full_is_no_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "exact.sqlite", Spec("a" * 64, DIM))
    index = Index(tmp_path / "exact.sqlite")
    index.put([Item("a", unit(1, DIM)[0])])
    index.close()
    monkeypatch.setattr(gpu, "_LEAST_BYTES", 1 << 45)
    monkeypatch.setattr(gpu, "_MOST_BYTES", 1 << 45)
    with pytest.raises(DeviceProblem, match="no memory"):
        Index(tmp_path / "exact.sqlite", device="cuda")


@pytest.mark.gpu
def test_an_index_is_searched_on_the_gpu(tmp_path: Path) -> None:
    make(tmp_path / "exact.sqlite", Spec("a" * 64, DIM))
    index = Index(tmp_path / "exact.sqlite", device="cuda")
    index.put([Item(str(number), vector) for number, vector in enumerate(unit(100, DIM))])
    assert index.device == "cuda"
    assert isinstance(index._searcher._gallery, GpuMatrix)
    assert [hits[0].id for hits in index.search(unit(100, DIM), 1)] == [str(number) for number in range(100)]
    index.close()
