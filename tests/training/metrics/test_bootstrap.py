from __future__ import annotations

import numpy as np
import pytest

from rankone.training.metrics.bootstrap import interval, intervals, resampled_means


def scores(count: int, part: float = 0.7, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(count) < part).astype(np.float64)


def test_a_seed_gives_the_same_interval_and_another_one_another() -> None:
    values = {"a": np.random.default_rng(0).random(50)}
    assert intervals(values) == intervals(values)
    assert intervals(values, seed=1) != intervals(values)


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
