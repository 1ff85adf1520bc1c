"""The small parts: the thread, the latency model, the sizes, and who may come in."""

from __future__ import annotations

import asyncio
import threading

import pytest

from service.batching.admission import Admission, QueueFull
from service.batching.lane import Lane, LaneDied
from service.batching.latency import LatencyModel
from service.batching.sizes import Sizes
from service.settings import Settings

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
    """Requests take turns: before a single image stands one of each request, before eight of them, eight of each."""
    admission = Admission(100, lambda: 2.0)
    with admission.reserve(64, 60), admission.reserve(2, 60):
        with admission.reserve(1, 1.1):
            pass
        with pytest.raises(QueueFull, match="what waits takes 1.0 s, more than this request allows"):
            admission.reserve(1, 0.9).__enter__()
        with pytest.raises(QueueFull, match="takes 5.0 s") as refused:
            admission.reserve(8, 3).__enter__()
        assert refused.value.retry_after_s == 2
    with admission.reserve(64, 0.1):
        pass
