from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from rankone.training.metrics.arrays import Floats, Ints
from rankone.training.metrics.retrieval import RECALL_AT, retrieval_scores, scores_of

ON_A_CIRCLE = np.array([0.0, 0.1, 0.3, 2.0, 2.2])
EMBEDDINGS = np.stack([np.cos(ON_A_CIRCLE), np.sin(ON_A_CIRCLE)], axis=1)


def slow(embeddings: Floats, labels: Ints) -> dict[str, list[float]]:
    """Every figure as its definition reads, one query after the other."""
    found: dict[str, list[float]] = {
        name: [] for name in (*(f"recall_at_{k}" for k in RECALL_AT), "r_precision", "map_at_r")
    }
    for query, (vector, label) in enumerate(zip(embeddings, labels, strict=True)):
        others = [i for i in range(len(labels)) if i != query]
        nearest = sorted(others, key=lambda i: (-float(np.dot(embeddings[i], vector)), i))
        relevant = [bool(labels[i] == label) for i in nearest]
        count = sum(relevant)
        for k in RECALL_AT:
            found[f"recall_at_{k}"].append(float(any(relevant[:k])))
        found["r_precision"].append(sum(relevant[:count]) / count if count else 0.0)
        at_hits = [sum(relevant[: i + 1]) / (i + 1) for i in range(count) if relevant[i]]
        found["map_at_r"].append(sum(at_hits) / count if count else 0.0)
    return found


def test_by_hand() -> None:
    """Image 2 lies among class 0 but belongs to class 1. Nearest others: 0: 1; 1: 0; 2: 1, 0, 3, 4; 3: 4, 2; 4: 3, 2."""
    found = retrieval_scores(EMBEDDINGS, np.array([0, 0, 1, 1, 1]))
    assert found["recall_at_1"].tolist() == [1, 1, 0, 1, 1]
    assert found["recall_at_2"].tolist() == [1, 1, 0, 1, 1]
    assert found["recall_at_4"].tolist() == [1, 1, 1, 1, 1]
    assert found["r_precision"].tolist() == [1, 1, 0, 1, 1]
    assert found["map_at_r"].tolist() == [1, 1, 0, 1, 1]


def test_average_precision_counts_ranks_within_r() -> None:
    relevant = np.array([[False, True, True, False], [True, False, True, False], [False] * 4, [True, True, True, True]])
    found = scores_of(relevant, np.array([2, 2, 0, 4]))
    assert found["map_at_r"].tolist() == [0.25, 0.5, 0, 1]
    assert found["r_precision"].tolist() == [0.5, 0.5, 0, 1]
    assert found["recall_at_1"].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(("count", "classes"), [(1, 1), (2, 1), (2, 2), (7, 2), (40, 3), (60, 30)])
def test_random_data_full_of_ties_against_a_plain_loop(count: int, classes: int) -> None:
    """Whole numbers make scores exact and many of them equal; with 30 classes some have one image, and some none."""
    draw = np.random.default_rng(count)
    embeddings, labels = draw.integers(-2, 3, (count, 3)).astype(np.float32), draw.integers(0, classes, count)
    found = retrieval_scores(embeddings, labels)
    for name, expected in slow(embeddings, labels).items():
        assert found[name] == pytest.approx(expected), name


@pytest.mark.parametrize("num_rows", [1, 7, 59, 1000])
def test_blocks_of_rows_change_nothing(num_rows: int) -> None:
    draw = np.random.default_rng(0)
    embeddings, labels = draw.integers(-2, 3, (60, 3)).astype(np.float32), draw.integers(0, 20, 60)
    whole, cut = retrieval_scores(embeddings, labels), retrieval_scores(embeddings, labels, num_rows=num_rows)
    for name, values in whole.items():
        assert np.array_equal(values, cut[name])


def test_all_scores_are_never_in_memory_at_once() -> None:
    """Those of 4,000 images are 64 MB, and their order 128 MB."""
    draw = np.random.default_rng(0)
    embeddings, labels = draw.normal(size=(4000, 2)).astype(np.float32), draw.integers(0, 100, 4000)
    tracemalloc.start()
    try:
        retrieval_scores(embeddings, labels)
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()


def test_an_image_is_never_its_own_neighbour() -> None:
    for values in retrieval_scores(EMBEDDINGS, np.arange(5)).values():
        assert not values.any()
    for values in retrieval_scores(np.zeros((4, 2)), np.arange(4)).values():
        assert not values.any()
