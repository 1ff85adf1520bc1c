from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from rankone.training import metrics
from rankone.training.metrics import (
    NUM_BINS,
    RECALL_AT,
    Floats,
    Ints,
    confusion_matrix,
    expected_calibration_error,
    interval,
    intervals,
    per_class_accuracy,
    rank_of_label,
    reliability,
    resampled_means,
    retrieval_scores,
    scores_of,
    softmax,
)


def test_the_rank_is_the_number_of_classes_that_come_first() -> None:
    logits = np.array([[3.0, 1, 2], [3, 1, 2], [3, 1, 2]])
    assert rank_of_label(logits, np.array([0, 1, 2])).tolist() == [0, 2, 1]


def test_of_equal_logits_the_first_class_leads_as_in_argmax() -> None:
    logits = np.array([[1.0, 1, 1, 0]] * 4)
    assert rank_of_label(logits, np.arange(4)).tolist() == [0, 1, 2, 3]


def test_ranks_are_those_of_a_stable_sort_on_data_full_of_ties() -> None:
    draw = np.random.default_rng(0)
    logits, labels = draw.integers(0, 4, (200, 9)).astype(np.float32), draw.integers(0, 9, 200)
    for row, label, rank in zip(logits, labels, rank_of_label(logits, labels), strict=True):
        order = sorted(range(9), key=lambda c: (-row[c], c))
        assert order.index(label) == rank
    assert ((rank_of_label(logits, labels) == 0) == (logits.argmax(1) == labels)).all()


def test_confusion_by_hand() -> None:
    found = confusion_matrix(np.array([0, 1, 1, 2, 0]), np.array([0, 0, 1, 1, 1]), 4)
    assert found.tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert per_class_accuracy(found) == [pytest.approx(1 / 2), pytest.approx(1 / 3), None, None]


def logits_of(*probabilities: float) -> np.ndarray:
    """Two classes; the first has these probabilities."""
    first = np.array(probabilities)
    return np.asarray(np.log(np.stack([first, 1 - first], axis=1)))


def test_the_error_by_hand() -> None:
    """0.9 and 0.9: one right, one wrong, gap 0.4; 0.7: right, gap 0.3. Two thirds of 0.4 and one third of 0.3."""
    bins = reliability(logits_of(0.9, 0.9, 0.7), np.array([0, 1, 0]))
    assert expected_calibration_error(bins) == pytest.approx((2 * 0.4 + 0.3) / 3)
    filled = [one for one in bins if one.count]
    assert [(one.count, one.accuracy) for one in filled] == [(1, 1.0), (2, 0.5)]
    assert [one.confidence for one in filled] == pytest.approx([0.7, 0.9])


def test_bins_are_15_of_equal_width_open_below() -> None:
    bins = reliability(np.zeros((1, 3)), np.array([0]))
    assert len(bins) == NUM_BINS == 15
    assert [one.low for one in bins] == pytest.approx([i / 15 for i in range(15)])
    assert bins[-1].high == 1
    # 1/3 is the upper edge of the fifth bin, and belongs to it
    assert [place for place, one in enumerate(bins) if one.count] == [4]
    assert bins[0].accuracy is None
    assert bins[0].confidence is None
    assert bins[0].gap == 0
    assert reliability(np.array([[1000.0, 0.0]]), np.array([0]))[-1].count == 1


def test_the_error_is_0_where_confidence_is_accuracy_and_1_where_it_is_the_opposite() -> None:
    sure = np.array([[1000.0, 0.0]] * 4)
    assert expected_calibration_error(reliability(sure, np.zeros(4, int))) == 0
    assert expected_calibration_error(reliability(sure, np.ones(4, int))) == 1
    assert expected_calibration_error(reliability(np.zeros((4, 2)), np.array([0, 1, 0, 1]))) == 0


def test_the_error_is_that_of_a_plain_loop() -> None:
    draw = np.random.default_rng(1)
    logits, labels = 2 * draw.normal(size=(300, 5)), draw.integers(0, 5, 300)
    total = 0.0
    for number in range(15):
        members = []
        for row, label in zip(logits, labels, strict=True):
            weights = [np.exp(value) for value in row]
            highest = max(weights) / sum(weights)
            if number / 15 < highest <= (number + 1) / 15:
                members.append((highest, float(weights.index(max(weights)) == label)))
        if members:
            total += abs(sum(m[0] for m in members) - sum(m[1] for m in members))
    assert expected_calibration_error(reliability(logits, labels)) == pytest.approx(total / 300)


def test_softmax_of_large_logits_stays_finite() -> None:
    assert np.allclose(softmax(np.array([[1e4, 1e4, -1e4]], np.float32)), [[0.5, 0.5, 0]])


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
def test_blocks_of_rows_change_nothing(num_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    embeddings, labels = draw.integers(-2, 3, (60, 3)).astype(np.float32), draw.integers(0, 20, 60)
    whole = retrieval_scores(embeddings, labels)
    monkeypatch.setattr(metrics, "NUM_ROWS", num_rows)
    cut = retrieval_scores(embeddings, labels)
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


def scores(count: int, part: float = 0.7, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(count) < part).astype(np.float64)


def test_an_interval_is_the_same_every_time_and_another_seed_gives_another_one() -> None:
    values = np.random.default_rng(0).random((50, 1))
    assert intervals({"a": values[:, 0]}) == {"a": interval(resampled_means(values)[:, 0])}
    assert not np.array_equal(resampled_means(values, seed=1), resampled_means(values))


def test_means_are_those_of_images_drawn_with_replacement() -> None:
    """The same draws as `choice` makes, taken one by one."""
    values = np.stack([scores(20), np.arange(20.0)], axis=1)
    found = resampled_means(values, num_resamples=5, seed=3)
    draw = np.random.default_rng(3)
    expected = [values[draw.integers(20, size=20)].mean(0) for _ in range(5)]
    assert np.allclose(found, expected)


def test_all_right_and_all_wrong_leave_nothing_open() -> None:
    assert intervals({"right": np.ones(9), "wrong": np.zeros(9)}) == {"right": (1, 1), "wrong": (0, 0)}
    assert intervals({"one image": np.ones(1)}) == {"one image": (1, 1)}


def test_the_width_is_that_of_a_mean_and_shrinks_with_its_root() -> None:
    widths = []
    for count in (100, 400, 1600):
        values = scores(count)
        low, high = intervals({"a": values})["a"]
        assert low < values.mean() < high
        assert high - low == pytest.approx(2 * 1.96 * values.std() / count**0.5, rel=0.15)
        widths.append(high - low)
    assert widths[0] > 1.6 * widths[1] > 1.6**2 * widths[2]


def test_it_holds_what_it_should_about_as_often_as_it_says() -> None:
    """300 samples of a part of 0.7: the interval of each holds 0.7 in 95 % of them; 90 to 99 % is within chance."""
    held = 0
    for seed in range(300):
        low, high = interval(resampled_means(scores(150, seed=seed)[:, None], num_resamples=300)[:, 0])
        held += low <= 0.7 <= high
    assert 0.90 <= held / 300 <= 0.99
