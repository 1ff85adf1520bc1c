from __future__ import annotations

import numpy as np
import pytest

from rankone.training.metrics.calibration import NUM_BINS, expected_calibration_error, reliability, softmax


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
