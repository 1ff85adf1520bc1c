from __future__ import annotations

import numpy as np
import pytest

from rankone.training.evaluate import FIGURES, Report, compute_report
from rankone.training.metrics import retrieval_scores

ON_A_CIRCLE = np.array([0.0, 0.1, 0.3, 2.0, 2.2])
EMBEDDINGS = np.stack([np.cos(ON_A_CIRCLE), np.sin(ON_A_CIRCLE)], axis=1)


def test_every_figure_by_hand() -> None:
    """Two classes on a circle; image 2 lies among the others of class 0 but belongs to class 1."""
    labels = np.array([0, 0, 1, 1, 1])
    logits = np.array([[2.0, 1], [1, 2], [2, 1], [0, 1], [0, 3]])
    report = compute_report(EMBEDDINGS, logits, labels, ("a", "b"))
    assert (report.num_images, report.num_alone) == (5, 0)
    assert report.top1 == pytest.approx(3 / 5)
    assert report.top5 == 1.0
    assert report.confusion == [[1, 1], [1, 2]]
    assert report.per_class == pytest.approx({"a": 1 / 2, "b": 2 / 3})
    # confidence 0.731 four times, two of them right, and 0.953 once, right
    sure, surer = 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-3))
    assert report.ece == pytest.approx((4 * (sure - 1 / 2) + (1 - surer)) / 5)
    assert report.reliability is not None
    assert [one.count for one in report.reliability] == [0] * 10 + [4, 0, 0, 0, 1]
    # nearest others: 0 -> 1; 1 -> 0; 2 -> 1 (wrong), 0 (wrong), 3, 4; 3 -> 4, 2; 4 -> 3, 2
    recall = [report.recall_at_1, report.recall_at_2, report.recall_at_4, report.recall_at_8]
    assert recall == pytest.approx([4 / 5, 4 / 5, 1, 1])
    # R = 1, 1, 2, 2, 2: images 0, 1, 3 and 4 are perfect, image 2 finds nothing among its first two
    assert [report.r_precision, report.map_at_r] == pytest.approx([4 / 5, 4 / 5])
    assert list(report.metrics) == list(FIGURES)
    assert set(report.intervals) == set(FIGURES) - {"ece"}
    assert report.intervals["top5"] == pytest.approx([1, 1])
    assert report.intervals["top1"][0] < 3 / 5 < report.intervals["top1"][1]
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_a_network_without_a_classifier_has_retrieval_alone() -> None:
    labels = np.array([0, 0, 1, 1, 1])
    report = compute_report(EMBEDDINGS, None, labels, ("a", "b"))
    assert (report.top1, report.top5, report.ece) == (None, None, None)
    assert (report.confusion, report.per_class, report.reliability) == (None, None, None)
    assert list(report.metrics) == list(FIGURES)[3:]
    assert set(report.intervals) == set(list(FIGURES)[3:])
    assert report.map_at_r == retrieval_scores(EMBEDDINGS, labels)["map_at_r"].mean()


def test_top5_counts_the_true_class_among_the_best_five() -> None:
    logits, classes = np.arange(20.0)[None].repeat(4, 0), tuple(map(str, range(20)))
    report = compute_report(EMBEDDINGS[:4], logits, np.array([19, 15, 14, 0]), classes)
    assert (report.top1, report.top5) == (1 / 4, 2 / 4)


def test_images_that_are_alone_in_their_class_are_counted_as_misses_and_told() -> None:
    report = compute_report(EMBEDDINGS[:3], np.eye(3), np.array([0, 0, 2]), ("a", "b", "c"))
    assert report.num_alone == 1
    assert report.recall_at_8 == pytest.approx(2 / 3)


def test_a_class_without_test_images_has_no_accuracy_and_disturbs_nothing() -> None:
    report = compute_report(EMBEDDINGS[:2], np.array([[1.0, 0, 0], [1.0, 0, 0]]), np.array([0, 0]), ("a", "b", "c"))
    assert report.per_class == {"a": 1.0, "b": None, "c": None}
    assert report.top1 == 1


def test_arrays_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="do not go together"):
        compute_report(EMBEDDINGS, np.zeros((5, 3)), np.zeros(5, int), ("a", "b"))
    with pytest.raises(ValueError, match="do not go together"):
        compute_report(EMBEDDINGS[:4], None, np.zeros(5, int), ("a", "b"))
    with pytest.raises(ValueError, match="do not go together"):
        compute_report(EMBEDDINGS[:0], np.zeros((0, 2)), np.zeros(0, int), ("a", "b"))


def test_numbers_that_are_none_are_refused_and_never_a_right_answer() -> None:
    broken = np.zeros((5, 2))
    broken[3, 1] = np.nan
    for embeddings, logits in ((EMBEDDINGS, broken), (broken, np.zeros((5, 2))), (broken, None)):
        with pytest.raises(ValueError, match="not finite"):
            compute_report(embeddings, logits, np.zeros(5, int), ("a", "b"))
