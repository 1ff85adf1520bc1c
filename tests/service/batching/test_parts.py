"""The small parts: the thread, the latency model, the sizes, and who may come in."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from rankone.model.engine import Engine, Outputs
from rankone.model.engine.base import Images, Precision
from rankone.service.batching.admission import Admission, QueueFull
from rankone.service.batching.lane import Lane, LaneDied
from rankone.service.batching.latency import LatencyModel
from rankone.service.batching.sizes import Sizes
from rankone.service.batching.warm import warm_up
from rankone.service.batching.worth import Worth
from rankone.service.settings import Settings

pytestmark = pytest.mark.anyio


async def test_a_lane_runs_one_call_after_another_in_one_thread() -> None:
    lane, order = Lane("test"), list[int]()

    def call(number: int) -> str:
        order.append(number)
        return threading.current_thread().name

    assert set(await asyncio.gather(*(lane(call, number) for number in range(20)))) == {"test"}
    assert order == list(range(20))
    with pytest.raises(ZeroDivisionError):
        await lane(lambda: 1 / 0)
    lane.close()


async def test_a_lane_whose_thread_is_ended_goes_on_in_another() -> None:
    deaths: list[str] = []
    lane = Lane("test", lambda: deaths.append("test"))

    def end() -> None:
        raise SystemExit

    first = await lane(threading.current_thread)
    ended, after = await asyncio.gather(lane(end), lane(threading.current_thread), return_exceptions=True)
    assert isinstance(ended, LaneDied)
    assert after is not first
    assert (deaths, lane.is_alive) == (["test"], True)
    lane.close()


async def test_a_call_given_up_does_not_stop_the_lane() -> None:
    lane, go_on = Lane("test"), threading.Event()
    waiting = asyncio.create_task(lane(go_on.wait, 30))
    await asyncio.sleep(0)
    waiting.cancel()
    go_on.set()
    assert await lane(lambda: "next") == "next"
    lane.close()


def test_the_latency_model_finds_a_line_and_follows_a_slower_machine() -> None:
    model = LatencyModel((1, 4, 8), (0.03, 0.06, 0.10))
    assert model.predict(16) == pytest.approx(0.18)
    for _ in range(100):
        model.observe(8, 0.20)
    assert model.predict(16) == pytest.approx(0.36, rel=1e-3)


def test_one_timing_is_a_line_through_nothing_and_a_falling_one_is_flat() -> None:
    assert LatencyModel((4,), (0.4,)).predict(8) == pytest.approx(0.8)
    falling = LatencyModel((1, 4), (0.4, 0.1))
    assert falling.predict(1000) == falling.predict(1) > 0


class Counting:
    """An engine that takes no time, and remembers the sizes that it ran."""

    name, provider = "counting", "test"
    precision: Precision = "float32"

    def __init__(self) -> None:
        self.sizes = list[int]()

    def run(self, images: Images) -> Outputs:
        self.sizes.append(len(images))
        return Outputs(np.zeros((len(images), 1), np.float32), None)

    def close(self) -> None: ...


@pytest.mark.parametrize(("most_s", "num_rounds"), [(60, 3), (0, 1)])
async def test_the_warm_up_begins_with_the_largest_batch_and_believes_the_best_of_some_rounds(
    most_s: float, num_rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an engine that is slow it is one round."""
    readings = iter([0.5, 0.2, 0.3, 0.9, 0.4, 0.1])

    async def seconds(engine: Engine, lane: Lane, pixels: Images) -> float:
        engine.run(pixels)
        return next(readings)

    monkeypatch.setattr("rankone.service.batching.warm._seconds", seconds)
    monkeypatch.setattr("rankone.service.batching.warm._MOST_S", most_s)
    lane, engine = Lane("test"), Counting()
    model = await warm_up(engine, lane, Sizes(4), (3, 2, 2))
    lane.close()
    assert engine.sizes == [4, 1] * (1 + num_rounds)
    best = (0.3, 0.1) if num_rounds == 3 else (0.5, 0.2)
    assert (model.predict(4), model.predict(1)) == pytest.approx(best)


def test_what_a_batch_saves_is_a_part_of_what_its_images_take_one_by_one() -> None:
    assert LatencyModel((1, 4), (1.0, 3.0)).gain(4) == pytest.approx(0.25)
    assert LatencyModel((1, 4), (1.0, 4.4)).gain(4) == 0
    assert LatencyModel((1, 4), (1.0, 0.9)).gain(4) == pytest.approx(0.75)
    assert LatencyModel((1,), (1.0,)).gain(1) == 0
    assert LatencyModel((1, 4), (0.0, 0.0)).gain(4) == 0


@pytest.mark.parametrize(
    ("seconds", "sizes", "words"),
    [
        (4.2, [1, 1, 1, 2, 3, 4, 4], "0.0 % of its images' time: it has half of those that wait"),
        (3.22, [1, 1, 1, 2, 3, 4, 4], "19.5 % of its images' time: it has half of those that wait"),
        (3.18, [4] * 7, "20.5 % of its images' time: it has all of those that wait"),
        (1.0, [4] * 7, "75.0 % of its images' time: it has all of those that wait"),
    ],
)
def test_a_batch_is_as_large_as_it_is_worth_its_wait(
    seconds: float, sizes: list[int], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    latency = LatencyModel((1, 4), (1.0, seconds))
    with caplog.at_level("INFO", "rankone"):
        worth = Worth(4, latency, always=False)
    assert [worth.size(count) for count in (0, 1, 2, 3, 5, 7, 100)] == sizes
    assert worth.takes_all == (sizes[0] == 4)
    assert caplog.messages == [f"a batch of 4 saves {words}"]
    always = Worth(4, latency, always=True)
    assert (always.takes_all, always.size(1), always.size(7)) == (True, 4, 4)


def test_images_that_wait_go_together_for_whoever_asks_for_it() -> None:
    assert not Settings().always_batches
    assert Settings(max_batch=8).always_batches
    assert Settings(batch_window_ms=1).always_batches


@pytest.mark.parametrize(
    ("saved", "at_half", "at_three_quarters"), [(0.0, 0.86, 0.97), (0.05, 0.91, 0.99), (0.19, 1.0, 1.05)]
)
def test_half_of_those_that_wait_is_sooner_where_a_batch_saves_little(
    saved: float, at_half: float, at_three_quarters: float
) -> None:
    """And hardly later where it saves as much as a machine that others use, too, makes of it, which the warm-up may not see.

    p99 of a queue simulated image by image, by that of batches of all that wait, at parts of what full batches come to.
    """
    latency = LatencyModel((1, 4), (1.0, 4 * (1 - saved)))
    for load, ratio in ((0.5, at_half), (0.75, at_three_quarters)):
        half, whole = (
            np.percentile(_waits(load / (1 - saved), latency, Worth(4, latency, always=always)), 99)
            for always in (False, True)
        )
        assert half / whole == pytest.approx(ratio, abs=0.02)


def _waits(rate: float, latency: LatencyModel, worth: Worth) -> list[float]:
    arrivals = np.cumsum(np.random.default_rng(0).exponential(1 / rate, 20_000))
    now, at, waits = 0.0, 0, list[float]()
    while at < len(arrivals):
        now = max(now, arrivals[at])
        waiting = int(np.searchsorted(arrivals, now, side="right")) - at
        size = min(waiting, worth.size(waiting))
        now += latency.predict(size)
        waits += [now - arrival for arrival in arrivals[at : at + size]]
        at += size
    return waits


def test_batches_are_filled_up_to_a_bucket_on_a_gpu_only() -> None:
    gpu, cpu = Settings(device="cuda", max_batch=12).sizes, Settings(max_batch=12).sizes
    assert gpu.buckets == (1, 2, 4, 8, 12)
    assert [gpu.padded(count) for count in (1, 3, 5, 9, 12)] == [1, 4, 8, 12, 12]
    assert [cpu.padded(count) for count in (1, 3, 12)] == [1, 3, 12]
    assert (gpu.to_warm(), cpu.to_warm()) == ((12, 8, 4, 2, 1), (12, 1))
    assert (Settings().sizes.max_batch, Settings(device="cuda").sizes.max_batch) == (4, 16)
    assert Sizes(1).to_warm() == (1,)


def test_a_stall_does_not_lock_everybody_out() -> None:
    """One batch that took 250 times as long moves the model a little; what is dropped on its word moves it back."""
    model = LatencyModel((1, 4), (0.02, 0.08))
    model.observe(1, 5.0)
    assert model.predict(1) < 0.03
    for _ in range(200):
        model.observe(1, 1.0)
    assert model.predict(1) == pytest.approx(1.0, rel=0.01)
    for _ in range(100):
        model.doubt()
    assert model.predict(1) == pytest.approx(0.02, rel=0.01)


def test_admission_counts_images_and_says_when_to_come_back() -> None:
    admission = Admission(10, lambda: 2.0)
    with admission.reserve(7, 60):
        with pytest.raises(QueueFull, match="7 images are waiting and 4 more would be over the 10") as refused:
            admission.reserve(4, 60).__enter__()
        assert refused.value.retry_after_s == 4
        with admission.reserve(3, 60):
            assert admission.num_images == 10
        assert admission.num_images == 7
    with pytest.raises(ZeroDivisionError), admission.reserve(10, 60):
        raise ZeroDivisionError
    assert admission.num_images == 0


def test_what_cannot_be_in_time_is_not_let_in() -> None:
    """Requests take turns: before a single image stands one of each request, before eight of them, eight of each.

    Its own images count, too, and there is to be some time to spare; but where nothing else waits, it is as soon as it can be.
    """
    admission = Admission(100, lambda: 2.0)
    with admission.reserve(64, 60), admission.reserve(2, 60):
        with admission.reserve(1, 1.8):
            pass
        with pytest.raises(QueueFull, match="with what waits it takes 1.5 s, too much for what this request allows"):
            admission.reserve(1, 1.7).__enter__()
        with pytest.raises(QueueFull, match="takes 9.0 s") as refused:
            admission.reserve(8, 4).__enter__()
        assert refused.value.retry_after_s == 6
    with admission.reserve(64, 0.1):
        pass
