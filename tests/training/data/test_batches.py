from __future__ import annotations

from collections import Counter
from functools import partial

from rankone.training.data.batches import balanced, shuffled

LABELS = [0] * 10 + [1] * 3 + [2] * 2


def test_balanced_epochs_draw_every_class_equally_often_and_as_many_images_as_there_are() -> None:
    groups = balanced(LABELS, 4, seed=0, epoch=0)
    drawn = [index for group in groups for index in group]
    assert [len(group) for group in groups] == [4, 4, 4, 3]
    assert Counter(LABELS[index] for index in drawn) == {0: 5, 1: 5, 2: 5}
    times = Counter(drawn)
    assert {times[index] for index in (10, 11, 12)} <= {1, 2}
    assert {times[index] for index in (13, 14)} == {2, 3}
    assert max(times[index] for index in range(10)) == 1


def test_where_the_classes_do_not_divide_an_epoch_some_are_drawn_once_more() -> None:
    drawn = [LABELS[index] for group in balanced([*LABELS, 0], 4, seed=0, epoch=0) for index in group if index < 15]
    assert len(drawn) in (15, 16)
    counts = Counter(drawn)
    assert max(counts.values()) - min(counts.values()) <= 2


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    for order in (partial(balanced, LABELS, 4), partial(shuffled, 15, 4)):
        assert order(0, 0) == order(0, 0)
        assert order(0, 0) != order(0, 1)
        assert order(0, 0) != order(1, 0)


def test_images_left_out_of_one_epoch_are_drawn_in_others() -> None:
    drawn = {index for epoch in range(10) for group in balanced(LABELS, 4, 0, epoch) for index in group}
    assert drawn == set(range(15))
