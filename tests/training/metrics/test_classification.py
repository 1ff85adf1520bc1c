from __future__ import annotations

import numpy as np
import pytest

from rankone.training.metrics.classification import confusion_matrix, per_class_accuracy, rank_of_label


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
