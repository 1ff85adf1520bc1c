"""Rows in memory: the directory, and the matrix over several blocks."""

from __future__ import annotations

import random

import numpy as np
import pytest

from rankone.index import exact
from rankone.index.exact import Matrix
from rankone.index.gallery import Directory
from rankone.index.search import Scope, Wish, ranked
from tests.index.oracle import unit

DIM = 24


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 8 rows, gathered 4 at a time."""
    monkeypatch.setattr(exact, "_TILE", 4)
    monkeypatch.setattr(exact, "_BLOCK_BYTES", 8 * 4 * DIM)


def filled(count: int) -> tuple[Matrix, Directory, dict[str, np.ndarray]]:
    rows, directory, expected = Matrix(DIM), Directory(), {}
    for number, vector in enumerate(unit(count, DIM), start=1):
        item_id = f"{number:03}"
        rows.set(directory.place(item_id, number), vector[None])
        expected[item_id] = vector
    return rows, directory, expected


def best(expected: dict[str, np.ndarray], query: np.ndarray, k: int) -> list[str]:
    return sorted(expected, key=lambda item_id: (-float(expected[item_id] @ query), item_id))[:k]


def test_blocks_are_never_moved_and_rows_stay_dense() -> None:
    """Any order of additions, replacements and removals, with the blocks that are there staying where they are."""
    rows, directory, expected = filled(50)
    first = rows._blocks[0]
    draw = random.Random(1)
    for turn in range(300):
        item_id = f"{draw.randint(1, 70):03}"
        if draw.random() < 0.55:
            vector = unit(1, DIM, turn + 100)[0]
            rows.set(directory.place(item_id, 1000 + turn), vector[None])
            expected[item_id] = vector
        else:
            move = directory.remove(item_id)
            assert (move is None) == (expected.pop(item_id, None) is None)
            if move is not None:
                rows.move(*move)
        assert len(directory) == len(expected)
        rows.fit(len(directory))
        assert rows.span == (max(0, (len(directory) - 1) // 8 * 8 + 1), -(-len(directory) // 8) * 8)
        query = unit(1, DIM, turn)
        (found,) = ranked(rows, directory, query, [Wish(5)], Scope(len(directory)))
        assert [place.id for place in found] == best(expected, query[0], 5)
    assert rows._blocks[0] is first


@pytest.mark.parametrize("chosen", [[0], [49], list(range(50)), list(range(8, 24)), [1, 3, 4, 5, 6, 7, 8, 30, 31, 49]])
def test_only_chosen_rows_take_part(chosen: list[int]) -> None:
    rows, directory, expected = filled(50)
    part = {directory.ids[row]: expected[directory.ids[row]] for row in chosen}
    queries = unit(20, DIM, seed=9)
    scope = Scope(np.array(chosen))
    for query, found in zip(queries, ranked(rows, directory, queries, [Wish(60)] * 20, scope), strict=True):
        assert [place.id for place in found] == best(part, query, 60)


def test_more_equal_scores_than_were_fetched_are_ordered_by_id() -> None:
    """The first k in alphabetical order of 45 equal items that were added in another one."""
    rows, directory = Matrix(DIM), Directory()
    (same,) = unit(1, DIM)
    ids = [f"{i:02}" for i in range(45)]
    for number, item_id in enumerate(random.Random(0).sample(ids, 45)):
        rows.set(directory.place(item_id, number), same[None])
    for asked in (1, 20):
        queries = np.repeat(same[None], asked, 0)
        for found in ranked(rows, directory, queries, [Wish(3)] * asked, Scope(45)):
            assert [place.id for place in found] == ["00", "01", "02"]
            assert len({place.score for place in found}) == 1


def test_a_score_does_not_depend_on_place_or_company() -> None:
    """The same to the last bit, alone and in a batch, in whichever row and among whichever rows."""
    dim = 1003
    vectors, queries = unit(60, dim), unit(40, dim, seed=1)
    scores: dict[str, set[float]] = {}
    for seed, batch in ((0, 1), (1, 40), (2, 13)):
        rows, directory = Matrix(dim), Directory()
        for number in random.Random(seed).sample(range(60), 60):
            rows.set(directory.place(str(number), number), vectors[number][None])
        for start in range(0, 40, batch):
            part = queries[start : start + batch]
            for query, found in enumerate(ranked(rows, directory, part, [Wish(60)] * len(part), Scope(60)), start):
                for place in found:
                    scores.setdefault(f"{query} {place.id}", set()).add(place.score)
    assert len(scores) == 2400
    assert {len(values) for values in scores.values()} == {1}


def test_one_of_each_label_even_where_the_first_fetched_share_it() -> None:
    rows, directory, expected = filled(50)
    queries = unit(3, DIM, seed=4)
    labels = {row: "few" if row % 10 == 0 else "many" for row in range(50)}
    for query, found in zip(
        queries, ranked(rows, directory, queries, [Wish(2)] * 3, Scope(np.arange(50), labels)), strict=True
    ):
        order = best(expected, query, 50)
        few = [item_id for item_id in order if (int(item_id) - 1) % 10 == 0]
        many = [item_id for item_id in order if (int(item_id) - 1) % 10]
        assert {place.id for place in found} == {few[0], many[0]}


def test_who_is_excluded_is_not_answered_and_costs_no_place() -> None:
    rows, directory, expected = filled(50)
    query = expected["007"][None]
    wish = Wish(4, exclude=frozenset({"007", "012"}))
    (found,) = ranked(rows, directory, query, [wish], Scope(50))
    assert [place.id for place in found] == [
        item_id for item_id in best(expected, query[0], 50) if item_id not in wish.exclude
    ][:4]


class Padded(Matrix):
    """A gallery that gives its candidates worst first, and the last of them, the best, many times."""

    def nearest(self, queries: np.ndarray, k: int, rows: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
        scores, numbers = super().nearest(queries, k, rows)
        return tuple(np.pad(part[:, ::-1], ((0, 0), (0, 30)), "edge") for part in (scores, numbers))  # type: ignore[return-value]

    def bound(self, last: float) -> float:
        return -2.0


def test_a_candidate_that_stands_there_many_times_takes_one_place() -> None:
    rows, directory, expected = filled(50)
    padded = Padded(DIM)
    padded._blocks = rows._blocks
    query = unit(1, DIM, seed=4)
    (found,) = ranked(padded, directory, query, [Wish(5)], Scope(50))
    assert [place.id for place in found] == best(expected, query[0], 5)
