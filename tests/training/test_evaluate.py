from __future__ import annotations

import numpy as np
import pytest

from training.evaluate import evaluate, map_at_r, neighbour_relevance, recall_at_k, topk_accuracy

ON_A_CIRCLE = np.array([0.0, 0.1, 0.3, 2.0, 2.2])
EMBEDDINGS = np.stack([np.cos(ON_A_CIRCLE), np.sin(ON_A_CIRCLE)], axis=1)


def test_every_figure_by_hand() -> None:
    """Two classes on a circle; image 2 lies among the others of class 0 but belongs to class 1."""
    labels = np.array([0, 0, 1, 1, 1])
    logits = np.array([[2.0, 1], [1, 2], [2, 1], [0, 1], [0, 3]])
    report = evaluate(EMBEDDINGS, logits, labels, ("a", "b"))
    assert report.num_images == 5
    assert report.top1 == pytest.approx(3 / 5)
    assert report.top5 == 1.0
    assert report.confusion == [[1, 1], [1, 2]]
    assert report.per_class == pytest.approx({"a": 1 / 2, "b": 2 / 3})
    # nearest others: 0 -> 1; 1 -> 0; 2 -> 1 (wrong), 0 (wrong), 3, 4; 3 -> 4, 2; 4 -> 3, 2
    assert report.recall_at_1 == pytest.approx(4 / 5)
    assert report.recall_at_5 == 1.0
    # mAP@R, R = 1, 1, 2, 2, 2: images 0, 1, 3 and 4 are perfect, image 2 finds nothing among its first two
    assert report.map_at_r == pytest.approx(4 / 5)
    assert set(report.metrics) == {"top1", "top5", "recall_at_1", "recall_at_5", "map_at_r"}


def test_map_at_r_counts_ranks() -> None:
    relevant = np.array([[False, True, False, True], [True, False, False, False], [False, False, False, False]])
    # R = 2: only rank 2 counts, at precision 1/2, over 2; R = 1: perfect; R = 0: nothing to find
    assert map_at_r(relevant) == pytest.approx((0.5 / 2 + 1 + 0) / 3)


def test_an_image_is_never_its_own_neighbour() -> None:
    relevant = neighbour_relevance(EMBEDDINGS, np.arange(5))
    assert relevant.shape == (5, 4)
    assert not relevant.any()
    assert recall_at_k(relevant, 5) == 0


def test_topk_counts_the_true_class_among_the_best() -> None:
    logits = np.arange(20.0)[None]
    assert topk_accuracy(logits, np.array([19]), 1) == 1
    assert topk_accuracy(logits, np.array([15]), 5) == 1
    assert topk_accuracy(logits, np.array([14]), 5) == 0


def test_a_class_without_test_images_scores_0_and_disturbs_nothing() -> None:
    report = evaluate(EMBEDDINGS[:2], np.array([[1.0, 0, 0], [1.0, 0, 0]]), np.array([0, 0]), ("a", "b", "c"))
    assert report.per_class == {"a": 1.0, "b": 0.0, "c": 0.0}


def test_arrays_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="do not go together"):
        evaluate(EMBEDDINGS, np.zeros((5, 3)), np.zeros(5, int), ("a", "b"))
