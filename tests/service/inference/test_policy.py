"""The size of batches, the warm-up, and the model of how long batches take."""

from __future__ import annotations

import numpy as np
import pytest

from rankone.model.engine import Engine, Outputs
from rankone.model.engine.base import Batch, Images, Precision
from rankone.service.inference.engine_thread import EngineThread
from rankone.service.inference.policy import BatchPolicy, LatencyModel, warm_up
from rankone.service.settings import Settings

pytestmark = pytest.mark.anyio


def test_batches_are_padded_on_a_gpu_only() -> None:
    gpu, cpu = Settings(device="cuda", max_batch=12).batch_policy, Settings(max_batch=12).batch_policy
    assert gpu.padded_sizes == (1, 2, 4, 8, 12)
    assert [gpu.padded(count) for count in (1, 3, 5, 9, 12)] == [1, 4, 8, 12, 12]
    assert [cpu.padded(count) for count in (1, 3, 12)] == [1, 3, 12]
    assert (gpu.warm_sizes, cpu.warm_sizes) == ((12, 8, 4, 2, 1), (12, 1))
    assert (Settings().batch_policy.max_batch, Settings(device="cuda").batch_policy.max_batch) == (4, 16)
    assert Settings(device="cuda", max_batch=16).batch_policy.padded_sizes == (1, 2, 4, 8, 16)
    assert BatchPolicy(1).warm_sizes == (1,)
    assert Settings(batch_window_ms=5).batch_policy.window_s == 0.005


def test_the_latency_model_finds_a_line_and_follows_a_slower_machine() -> None:
    model = LatencyModel((1, 4, 8), (0.03, 0.06, 0.10))
    assert model.predict(16) == pytest.approx(0.18)
    for _ in range(100):
        model.observe(8, 0.20)
    assert model.predict(16) == pytest.approx(0.36, rel=1e-3)


def test_one_timing_is_a_line_through_the_origin_and_a_falling_one_is_flat() -> None:
    assert LatencyModel((4,), (0.4,)).predict(8) == pytest.approx(0.8)
    falling = LatencyModel((1, 4), (0.4, 0.1))
    assert falling.predict(1000) == falling.predict(1) > 0


def test_one_batch_that_was_held_up_changes_little() -> None:
    model = LatencyModel((1, 4), (0.02, 0.08))
    model.observe(1, 5.0)
    assert model.predict(1) < 0.03
    for _ in range(200):
        model.observe(1, 1.0)
    assert model.predict(1) == pytest.approx(1.0, rel=0.01)


def test_a_network_that_takes_no_time_is_no_division_by_zero() -> None:
    model = LatencyModel((1, 4), (0.0, 0.0))
    model.observe(1, 0.0)
    assert model.predict(4) == 0


class Counting:
    """An engine that takes no time, and remembers the sizes that it ran."""

    name, provider = "counting", "test"
    precision: Precision = "float32"

    def __init__(self) -> None:
        self.sizes = list[int]()

    def run(self, images: Batch, *, features: bool = False) -> Outputs:
        self.sizes.append(len(images))
        return Outputs(np.zeros((len(images), 1), np.float32), None)

    def close(self) -> None: ...


@pytest.mark.parametrize(("limit_s", "num_rounds"), [(60, 3), (0, 1)])
async def test_the_warm_up_begins_with_the_largest_batch_and_believes_the_fastest_round(
    limit_s: float, num_rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow engine has one round."""
    readings = iter([0.5, 0.2, 0.3, 0.9, 0.4, 0.1])

    async def seconds(engine: Engine, thread: EngineThread, pixels: Images) -> float:
        engine.run(pixels)
        return next(readings)

    monkeypatch.setattr("rankone.service.inference.policy._seconds", seconds)
    monkeypatch.setattr("rankone.service.inference.policy._WARM_UP_S", limit_s)
    thread, engine = EngineThread(lambda: None), Counting()
    model = await warm_up(engine, thread, BatchPolicy(4), (3, 2, 2))
    thread.close()
    assert engine.sizes == [4, 1] * (1 + num_rounds)
    best = (0.3, 0.1) if num_rounds == 3 else (0.5, 0.2)
    assert (model.predict(4), model.predict(1)) == pytest.approx(best)
    assert model.slowest_s == (0.9 if num_rounds == 3 else 0.5)
