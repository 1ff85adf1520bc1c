"""The batcher with an engine of the test's own, which waits until it is told to go on: every order is the test's to choose."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest

from rankone.model.engine import EngineError, EngineOutOfMemory, Outputs
from rankone.service.batching.batcher import Batcher
from rankone.service.batching.job import Job
from rankone.service.batching.sizes import Sizes
from rankone.service.errors import DeadlinePassed
from tests.service.batching.bench import Bench, answer

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bench(anyio_backend: str) -> AsyncIterator[Bench]:
    bench = Bench(Sizes(4))
    yield bench
    assert bench.slots.num_free == 64
    await bench.close()


async def test_what_waits_is_taken_as_soon_as_the_engine_is_free(bench: Bench) -> None:
    """The first image does not wait for company; what comes while it runs goes together."""
    first = bench.job(1)
    await bench.started()
    others = [bench.job(2, 3), bench.job(4)]
    bench.engine.open.release(2)
    await asyncio.gather(first.done, *(job.done for job in others))
    assert bench.sizes() == [1, 3]
    assert [answer(job) for job in (first, *others)] == [[1], [2, 3], [4]]


async def test_one_full_batch_is_prepared_ahead_and_no_more(bench: Bench) -> None:
    first = bench.job(0)
    await bench.started()
    large = bench.job(*range(1, 11))
    await bench.settle()
    assert bench.slots.num_free == 64 - 6, "four of ten are copied out of their slots, and wait for the engine"
    bench.engine.open.release(4)
    await asyncio.gather(first.done, large.done)
    assert bench.sizes() == [1, 4, 4, 2]
    assert answer(large) == list(range(1, 11))


async def test_where_a_batch_saves_little_it_has_half_of_those_that_wait(anyio_backend: str) -> None:
    bench = Bench(Sizes(4), other=1.0)
    job = bench.job(*range(7))
    await bench.started()
    await bench.settle()
    assert bench.slots.num_free == 64 - 1, "four of seven run, and two of three are prepared ahead"
    bench.engine.open.release(7)
    await job.done
    assert (bench.sizes(), answer(job)) == ([4, 2, 1], list(range(7)))
    await bench.close()


async def test_of_those_that_wait_some_are_not_decoded_yet(anyio_backend: str) -> None:
    bench = Bench(Sizes(4), other=0.95)
    bench.turns.num_queued, bench.turns.num_decoding = lambda: 2, lambda: 1
    job = bench.job(*range(5))
    bench.engine.open.release(10)
    await job.done
    assert bench.sizes() == [4, 1], "of eight, of four"
    await bench.close()


async def test_a_single_image_does_not_wait_for_a_large_request(bench: Bench) -> None:
    first = bench.job(0)
    await bench.started()
    large = bench.job(*range(1, 21))
    await bench.settle()
    single = bench.job(100)
    bench.engine.open.release(3)
    await asyncio.gather(first.done, single.done)
    assert not large.is_over
    assert 100 in bench.engine.batches[2][:, 0, 0, 0]
    bench.engine.open.release(100)
    await large.done
    assert answer(large) == list(range(1, 21))


async def test_a_window_waits_for_company(anyio_backend: str) -> None:
    bench = Bench(Sizes(4), window_s=0.05)
    bench.engine.open.release(10)
    jobs = [bench.job(1)]
    await asyncio.sleep(0.01)
    jobs.append(bench.job(2))
    await asyncio.gather(*(job.done for job in jobs))
    assert bench.sizes() == [2]
    await bench.close()


async def test_a_window_ends_when_the_batch_is_full_and_counts_from_the_first(anyio_backend: str) -> None:
    bench = Bench(Sizes(2), window_s=30)
    bench.engine.open.release(10)
    await asyncio.gather(*(job.done for job in (bench.job(1), bench.job(2))))
    bench.batcher._window_s = 0.2
    held = Bench(Sizes(4), window_s=0.2)
    first = held.job(1)
    await held.started()
    second = held.job(2)
    await asyncio.sleep(0.3)
    held.engine.open.release(1)
    started = time.perf_counter()
    await held.started()
    assert time.perf_counter() - started < 0.15, "it has waited long enough while the engine was busy"
    held.engine.open.release(10)
    await asyncio.gather(first.done, second.done)
    await bench.close()
    await held.close()


async def test_a_prepared_batch_that_everybody_has_left_is_not_run(bench: Bench) -> None:
    first = bench.job(0)
    await bench.started()
    gone = bench.job(1, 2, 3, 4)
    await bench.settle()
    gone.done.cancel()
    last = bench.job(5)
    bench.engine.open.release(2)
    await asyncio.gather(first.done, last.done)
    assert [batch[:, 0, 0, 0].tolist() for batch in bench.engine.batches] == [[0], [5]]


async def test_a_deadline_counts_what_the_engine_is_still_at(bench: Bench) -> None:
    """The running batch will take 0.1 s by the model and has just begun: 0.3 s are too few for it and four more."""
    first = bench.job(0)
    await bench.started()
    late = bench.job(1, 1, 1, 1, deadline_s=0.3)  # four alone take 0.25 s
    with pytest.raises(DeadlinePassed):
        await late.done
    bench.engine.open.release(2)
    await first.done
    await bench.settle()
    assert bench.sizes() == [1]


@pytest.mark.parametrize("where", ["copy", "answer"])
async def test_a_fault_beside_the_engine_costs_its_batch_and_no_more(
    bench: Bench, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.engine.open.release(10)
    with monkeypatch.context() as patch:
        if where == "copy":
            patch.setattr(Batcher, "_copied", lambda *_: 1 / 0)
        else:
            patch.setattr(bench.engine, "run", lambda _: Outputs(np.zeros((0, 1), np.float32), None))
        bad = bench.job(1)
        with pytest.raises(EngineError, match="failed on this batch"):
            await bad.done
    good = bench.job(2)
    await good.done
    assert (answer(good), bench.batcher.is_alive) == ([2], True)


async def test_batches_are_filled_up_to_their_bucket(anyio_backend: str) -> None:
    bench = Bench(Sizes(4, (1, 2, 4)))
    bench.engine.open.release(10)
    job = bench.job(1, 2, 3)
    await job.done
    assert (bench.sizes(), answer(job)) == ([4], [1, 2, 3])
    assert not bench.engine.batches[0][3].any()
    await bench.close()


async def test_work_that_nobody_waits_for_is_dropped(bench: Bench) -> None:
    first = bench.job(0)
    await bench.started()
    gone, stays = bench.job(1, 2), bench.job(3)
    gone.done.cancel()
    bench.batcher.discard(gone)
    assert bench.slots.num_free == 64 - 1, "only the image that stays has a slot"
    bench.engine.open.release(2)
    await asyncio.gather(first.done, stays.done)
    assert [batch[:, 0, 0, 0].tolist() for batch in bench.engine.batches] == [[0], [3]]


async def test_work_that_cannot_be_in_time_is_dropped_before_it_runs(bench: Bench) -> None:
    """A batch of two takes 0.15 s by the model: a deadline in 0.12 s cannot be kept with company, one in 60 s can."""
    first = bench.job(0)
    await bench.started()
    late, fine = bench.job(1, deadline_s=0.12), bench.job(2)
    bench.engine.open.release(2)
    with pytest.raises(DeadlinePassed):
        await late.done
    await asyncio.gather(first.done, fine.done)
    assert [batch[:, 0, 0, 0].tolist() for batch in bench.engine.batches] == [[0], [2]]


async def test_a_refused_image_keeps_its_request_from_the_engine(bench: Bench) -> None:
    from rankone.model.preprocessing import UndecodableImage
    from rankone.service.errors import InputsRejected

    first = bench.job(0)
    await bench.started()
    job = Job([b""] * 3, time.perf_counter() + 60)
    bench.put(job.tasks[0], 1)
    job.reject(job.tasks[2], UndecodableImage("broken"))
    assert not job.is_over, "the third image has not been looked at"
    job.reject(job.tasks[1], UndecodableImage("broken too"))
    bench.engine.open.release(2)
    with pytest.raises(InputsRejected) as refused:
        await job.done
    assert [rejection.index for rejection in refused.value.rejections] == [1, 2]
    await first.done
    await bench.settle()
    assert bench.sizes() == [1]


async def test_out_of_memory_halves_the_batch_once(bench: Bench) -> None:
    bench.engine.fault = lambda images: EngineOutOfMemory("too large") if len(images) > 2 else None
    bench.engine.open.release(10)
    job = bench.job(1, 2, 3, 4)
    await job.done
    assert (bench.sizes(), answer(job)) == ([4, 2, 2], [1, 2, 3, 4])
    bench.engine.fault = lambda _: EngineOutOfMemory("too large")
    doomed = bench.job(1, 2, 3, 4)
    with pytest.raises(EngineOutOfMemory):
        await doomed.done
    assert bench.sizes() == [4, 2, 2, 4, 2]


@pytest.mark.parametrize("fault", [ValueError("inside"), EngineError("said so"), SystemExit()])
async def test_a_fault_costs_its_own_batch_and_no_other(
    bench: Bench, fault: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one that ends the engine's thread."""
    first = bench.job(0)
    await bench.started()
    bench.engine.fault = lambda images: fault if 1 in images else None
    bad, good = bench.job(1), None
    bench.engine.open.release(2)
    with pytest.raises(EngineError, match="said so|failed on this batch"):
        await bad.done
    good = bench.job(2)
    bench.engine.open.release(1)
    await asyncio.gather(first.done, good.done)
    assert answer(good) == [2]
    assert bench.batcher.is_alive
    assert (bench.num_deaths, bench.lane.is_alive) == (isinstance(fault, SystemExit), True)
    assert "a batch of 1 images failed" in caplog.text


async def test_an_engine_that_does_not_come_back_can_be_seen(bench: Bench) -> None:
    assert bench.batcher.running_s == 0
    job = bench.job(1)
    await bench.started()
    await asyncio.sleep(0.01)
    assert bench.batcher.running_s >= 0.01
    bench.engine.open.release(1)
    await job.done
    await bench.settle()
    assert bench.batcher.running_s == 0


async def test_nan_in_an_answer_is_an_error_of_that_image_alone(bench: Bench) -> None:
    first = bench.job(0)
    await bench.started()
    good, bad, mixed, other = bench.job(1), bench.job(np.nan), bench.job(2, np.inf), bench.job(3)
    bench.engine.open.release(10)
    for job in (bad, mixed):
        with pytest.raises(EngineError, match="this image with NaN or infinity"):
            await job.done
    await asyncio.gather(*(job.done for job in (first, good, other)))
    assert (answer(good), answer(other)) == ([1], [3])
    assert bench.sizes()[1] == 4, "they were of one batch"


@pytest.mark.parametrize("part", ["slots.on_release", "turns.on_decoders"])
async def test_a_fault_of_ours_is_not_the_end_of_all_answers(
    bench: Bench, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    """In what decoders are told by either of its loops."""
    owner, _, told = part.partition(".")
    setattr(getattr(bench, owner), told, lambda: 1 / 0)
    bench.engine.open.release(10)
    first = bench.job(1)
    await first.done
    await bench.settle()
    assert "the batcher failed, and goes on" in caplog.text
    setattr(getattr(bench, owner), told, lambda: None)
    second = bench.job(2)
    async with asyncio.timeout(10):
        await second.done
    assert (answer(first), answer(second), bench.batcher.is_alive) == ([1], [2], True)
