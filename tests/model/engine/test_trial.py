"""The trial of engines, by a clock that only they turn."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from rankone.model.engine import trial
from rankone.model.engine.check import probe


class Clocked:
    """An engine that takes so many milliseconds a run, the last of them again and again."""

    def __init__(self, name: str, clock: SimpleNamespace, *takes_ms: float) -> None:
        self.name, self.precision, self._clock, self._takes_ms = name, "float32", clock, list(takes_ms)
        self.runs = 0

    def run(self, images: Any) -> None:
        assert (images == probe(32)[:1]).all()
        self._clock.now += self._takes_ms[min(self.runs, len(self._takes_ms) - 1)] / 1e3
        self.runs += 1


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [
        ((100,), (50,), "second"),
        ((100,), (89,), "second"),
        ((100,), (91,), "first"),  # less than 10 %
        ((100,), (200,), "first"),
        ((100,), (500, 500, 50), "second"),  # disturbed twice
    ],
)
def test_the_best_time_counts_and_the_first_is_kept_where_others_are_hardly_faster(
    first: tuple[float, ...], second: tuple[float, ...], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    engines: list[Any] = [Clocked("first", clock, *first), Clocked("second", clock, *second)]
    best, times = trial.fastest(engines, 32)
    assert best.name == chosen
    assert times == f"an image takes first float32 {min(first):.1f} ms, second float32 {min(second):.1f} ms"
    assert engines[0].runs == engines[1].runs
    assert 2.0 <= clock.now <= 2.0 + (max(first) + max(second)) / 1e3


def test_slow_engines_have_one_turn_each(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    engines: list[Any] = [Clocked("first", clock, 5000), Clocked("second", clock, 3000)]
    assert trial.fastest(engines, 32)[0].name == "second"
    assert [engine.runs for engine in engines] == [1, 1]
