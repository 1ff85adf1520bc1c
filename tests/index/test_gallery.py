"""The galleries that compare every row, on the CPU and by torch, against NumPy; and the answers made of what they find.

The GPU's gallery runs here on the CPU: all of it but one product of matrices.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import faiss
import numpy as np
import pytest

from rankone.index import SearchOptions, exact, gpu
from rankone.index import search as searching
from rankone.index.exact import BlockGallery, ExactGallery
from rankone.index.gallery import Candidates, RowTable
from rankone.index.gpu import GpuGallery
from rankone.index.search import ScoredRow, search
from tests.index.oracle import unit

DIM = 24
Make = Callable[[int], BlockGallery]


@pytest.fixture(params=["exact", "<f2", "<f4"])
def make(request: pytest.FixtureRequest) -> Make:
    if request.param == "exact":
        return ExactGallery
    return lambda dim: GpuGallery(dim, np.dtype(request.param), "cpu")


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 8 rows and more, a few rows and pairs at a time, and sums of few terms."""
    monkeypatch.setattr(exact, "_TILE", 4)
    monkeypatch.setattr(exact, "_BLOCK_BYTES", 8 * 4 * DIM)
    for name, value in (("_LEAST_BYTES", 8 * 2 * DIM), ("_MOST_BYTES", 16 * 2 * DIM), ("_SCRATCH_BYTES", 4 * 42)):
        monkeypatch.setattr(gpu, name, value)
    for name, value in (("_LEAST_FOUND", 1), ("_PAIRS", 5), ("_TERMS", 10)):
        monkeypatch.setattr(gpu, name, value)


class Filled:
    """A gallery, and its rows in a dictionary."""

    def __init__(self, gallery: BlockGallery, count: int) -> None:
        self.gallery, self.table, self.vectors = gallery, RowTable(), dict[str, np.ndarray]()
        for number, vector in enumerate(unit(count, DIM), start=1):
            self.put(f"{number:03}", number, vector)

    def put(self, item_id: str, number: int, vector: np.ndarray) -> None:
        self.vectors[item_id] = vector.astype(np.float16)
        self.gallery.write(self.table.add(item_id, number), self.vectors[item_id][None])

    def remove(self, item_id: str) -> None:
        move = self.table.remove(item_id)
        assert (move is None) == (self.vectors.pop(item_id, None) is None)
        if move is not None:
            self.gallery.move(*move)

    def search(
        self,
        queries: np.ndarray,
        options: SearchOptions,
        rows: np.ndarray | None = None,
        labels: dict[int, str] | None = None,
    ) -> list[list[ScoredRow]]:
        rows = self.table.all_rows if rows is None else rows
        return search(self.gallery, self.table.ids, queries, [options] * len(queries), rows, labels)

    def best(self, query: np.ndarray, ids: list[str] | None = None) -> list[str]:
        """All items, or those with these ids, best first."""
        ids = list(self.vectors) if ids is None else ids
        return sorted(ids, key=lambda item_id: (-float(self.vectors[item_id].astype(np.float64) @ query), item_id))


def found_ids(found: list[ScoredRow]) -> list[str]:
    return [scored.id for scored in found]


@pytest.mark.usefixtures("_small")
def test_rows_stay_dense_and_blocks_where_they_are_through_any_changes(make: Make) -> None:
    filled = Filled(make(DIM), 50)
    first, draw = filled.gallery._blocks[0], random.Random(1)
    for turn in range(150):
        item_id = f"{draw.randint(1, 70):03}"
        if draw.random() < 0.55:
            filled.put(item_id, 1000 + turn, unit(1, DIM, turn + 100)[0])
        else:
            filled.remove(item_id)
        assert len(filled.table) == len(filled.vectors)
        if turn % 3 == 0:  # else there may be room for more
            filled.gallery.fit(len(filled.table))
            heights = [len(block) for block in filled.gallery._blocks]
            assert filled.gallery.stable_row_counts == (sum(heights[:-1]) + 1, sum(heights))
            assert filled.gallery.stable_row_counts[0] <= len(filled.table) <= filled.gallery.stable_row_counts[1]
        (query,) = queries = unit(1, DIM, turn)
        assert found_ids(filled.search(queries, SearchOptions(5))[0]) == filled.best(query)[:5]
    assert filled.gallery._blocks[0] is first


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("k", [1, 3, 60])
@pytest.mark.parametrize("chosen", [[0], [49], list(range(50)), list(range(8, 24)), [1, 3, 4, 5, 6, 7, 8, 30, 31, 49]])
def test_only_chosen_rows_take_part(make: Make, chosen: list[int], k: int) -> None:
    filled, queries = Filled(make(DIM), 50), unit(20, DIM, seed=9)
    ids = [filled.table.ids[row] for row in chosen]
    for query, found in zip(queries, filled.search(queries, SearchOptions(k), np.array(chosen)), strict=True):
        assert found_ids(found) == filled.best(query, ids)[:k]
        scores = [filled.vectors[item_id].astype(np.float64) @ query for item_id in found_ids(found)]
        assert [scored.score for scored in found] == pytest.approx(scores, abs=1e-6)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("num_queries", [1, 2, 3])
@pytest.mark.parametrize("chosen", [list(range(50)), [0, 1], [7], list(range(3, 50, 2))])
def test_rows_are_divided_among_threads_where_queries_are_few(
    monkeypatch: pytest.MonkeyPatch, num_queries: int, chosen: list[int]
) -> None:
    """The answers are those of one thread, also where a thread has fewer rows than are asked for, or none."""
    filled, queries = Filled(ExactGallery(DIM), 50), unit(num_queries, DIM, seed=9)
    monkeypatch.setattr(exact, "_DIVIDED_BYTES", 1)
    before = faiss.omp_get_max_threads()
    answers = []
    for num_threads in (1, 3):
        faiss.omp_set_num_threads(num_threads)
        try:
            answers.append(filled.search(queries, SearchOptions(5), np.array(chosen)))
        finally:
            faiss.omp_set_num_threads(before)
    assert answers[0] == answers[1]
    ids = [filled.table.ids[row] for row in chosen]
    assert [found_ids(found) for found in answers[1]] == [filled.best(query, ids)[:5] for query in queries]


@pytest.mark.usefixtures("_small")
def test_more_equal_scores_than_were_fetched_are_ordered_by_id(make: Make) -> None:
    """The first k in alphabetical order of 45 equal items that were added in another one."""
    filled = Filled(make(DIM), 0)
    (same,) = unit(1, DIM)
    for number, item_id in enumerate(random.Random(0).sample([f"{i:02}" for i in range(45)], 45)):
        filled.put(item_id, number, same)
    for num_queries in (1, 20):
        for found in filled.search(np.repeat(same[None], num_queries, 0), SearchOptions(3)):
            assert found_ids(found) == ["00", "01", "02"]
            assert len({scored.score for scored in found}) == 1


@pytest.mark.parametrize("labelled", [False, True])
def test_a_query_of_zeros_finds_the_first_by_id_and_looks_at_no_vector(
    make: Make, labelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is as near to one row as to any other: ranking by score would fetch all of them."""
    filled = Filled(make(DIM), 0)
    ids = random.Random(0).sample([f"{i:03}" for i in range(200)], 200)
    for number, item_id in enumerate(ids):
        filled.put(item_id, number, unit(1, DIM, seed=number)[0])
    other = unit(1, DIM, seed=1000)
    labels = {row: item_id[:2] for row, item_id in enumerate(ids)} if labelled else None
    options = SearchOptions(3, exclude=frozenset({"000", "001"}))
    expected = ["002", "010", "020"] if labelled else ["002", "003", "004"]
    num_queries, nearest = list[int](), filled.gallery.nearest

    def spy(queries: np.ndarray, k: int, rows: np.ndarray) -> list[Candidates]:
        num_queries.append(len(queries))
        return nearest(queries, k, rows)

    monkeypatch.setattr(filled.gallery, "nearest", spy)
    found = filled.search(np.concatenate([np.zeros_like(other), other, np.zeros_like(other)]), options, labels=labels)
    assert [found_ids(answer) for answer in (found[0], found[2])] == [expected, expected]
    assert {scored.score for scored in found[0]} == {0}
    assert found[1] == filled.search(other, options, labels=labels)[0]
    assert set(num_queries) == {1}
    rows = np.array([ids.index(item_id) for item_id in ("150", "050", "100")])
    some = filled.search(np.zeros_like(other), SearchOptions(2), np.sort(rows), labels)
    assert found_ids(some[0]) == ["050", "100"]
    assert filled.search(np.zeros_like(other), SearchOptions(2, min_score=0.1), labels=labels) == [[]]


def test_only_rows_of_the_answer_become_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a million rows that tie, a search makes no million objects while every other search waits."""
    filled, made = Filled(ExactGallery(DIM), 0), list[str]()
    for number in range(500):
        filled.put(f"{number:03}", number, unit(1, DIM)[0])

    def scored(row: int, item_id: str, score: float) -> ScoredRow:
        made.append(item_id)
        return ScoredRow(row, item_id, score)

    monkeypatch.setattr(searching, "ScoredRow", scored)
    filled.search(unit(1, DIM), SearchOptions(3))
    assert set(made) == {"000", "001", "002"}


def test_a_score_does_not_depend_on_place_or_company(make: Make) -> None:
    """The same to the last bit, alone and in a batch, in whichever row and among whichever rows."""
    dim = 1003
    vectors, queries = unit(60, dim).astype(np.float16), unit(40, dim, seed=1)
    scores: dict[str, set[float]] = {}
    for seed, batch in ((0, 1), (1, 40), (2, 13)):
        gallery, table = make(dim), RowTable()
        for number in random.Random(seed).sample(range(60), 60):
            gallery.write(table.add(str(number), number), vectors[number][None])
        for start in range(0, 40, batch):
            part = queries[start : start + batch]
            options = [SearchOptions(60)] * len(part)
            for query, found in enumerate(search(gallery, table.ids, part, options, table.all_rows), start):
                for scored in found:
                    scores.setdefault(f"{query} {scored.id}", set()).add(scored.score)
    assert len(scores) == 2400
    assert {len(values) for values in scores.values()} == {1}


@pytest.mark.usefixtures("_small")
def test_one_of_each_label_even_where_the_first_fetched_share_it(make: Make) -> None:
    filled, queries = Filled(make(DIM), 50), unit(3, DIM, seed=4)
    labels = {row: "few" if row % 10 == 0 else "many" for row in range(50)}
    for query, found in zip(queries, filled.search(queries, SearchOptions(2), labels=labels), strict=True):
        order = filled.best(query)
        few = [item_id for item_id in order if (int(item_id) - 1) % 10 == 0]
        many = [item_id for item_id in order if (int(item_id) - 1) % 10]
        assert set(found_ids(found)) == {few[0], many[0]}


@pytest.mark.usefixtures("_small")
def test_excluded_ids_and_low_scores_are_not_answered_and_take_no_place(make: Make) -> None:
    filled = Filled(make(DIM), 50)
    query = filled.vectors["007"].astype(np.float32)
    exclude = frozenset({"007", "012"})
    expected = [item_id for item_id in filled.best(query) if item_id not in exclude]
    assert found_ids(filled.search(query[None], SearchOptions(4, exclude=exclude))[0]) == expected[:4]
    least = float(filled.vectors[expected[2]].astype(np.float64) @ query) - 1e-5
    assert found_ids(filled.search(query[None], SearchOptions(9, least, exclude))[0]) == expected[:3]
