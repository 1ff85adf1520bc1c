"""How turns are taken, and what is said of them."""

from __future__ import annotations

import pytest

from benchmarks.serving.saturation import Turn, _in_turns, _interval, _total


def test_everybody_has_as_many_turns_and_the_first_of_all_do_not_count() -> None:
    played = list[str]()

    def play(name: str) -> Turn:
        played.append(name)
        return Turn(len(played), 1.0, 0.5)

    turns = _in_turns({"a": lambda: play("a"), "b": lambda: play("b")}, 3)
    assert played == list("ababbaab")
    assert [turn.num_images for turn in turns["a"]] == [3, 6, 7]
    assert [turn.num_images for turn in turns["b"]] == [4, 5, 8]
    assert _total(turns["a"]) == Turn(16, 3.0, 1.5)


def test_what_makes_both_slow_does_not_make_their_ratio_uncertain() -> None:
    engine = [Turn(images, 1.0, 2.0) for images in (10, 20, 40, 30, 10)]
    alike = [Turn(turn.num_images * 9 // 10, 1.0, 2.0) for turn in engine]
    assert _interval(alike, engine) == pytest.approx((0.9, 0.9))
    low, high = _interval([Turn(18, 1.0, 2.0), *alike[1:4], Turn(0, 1.0, 2.0)], engine)
    assert low < 0.85
    assert high > 0.95
