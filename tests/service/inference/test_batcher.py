"""The batcher with an engine that waits until the test lets it run, so that the test chooses every order of events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest

from rankone.model.engine import EngineError, EngineOutOfMemory, Outputs
from rankone.model.preprocessing import UndecodableImage
from rankone.service.errors import DeadlinePassed, InputsRejected
from rankone.service.inference.batcher import Batcher
from rankone.service.inference.job import Job
from rankone.service.inference.policy import BatchPolicy
from tests.service.inference.bench import NUM_SLOTS, Bench, answer

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bench(anyio_backend: str) -> AsyncIterator[Bench]:
    bench = Bench(BatchPolicy(4))
    yield bench
    await bench.settle()
    assert bench.slots.qsize() == NUM_SLOTS
    await bench.close()


async def test_a_free_engine_takes_what_waits_at_once(bench: Bench) -> None:
    """The first image does not wait for others; images that come while it runs go together."""
    first = bench.job(1)
    await bench.started()
    others = [bench.job(2, 3), bench.job(4)]
    bench.engine.open.release(2)
    await asyncio.gather(first.done, *(job.done for job in others))
    assert bench.sizes() == [1, 3]
    assert [answer(job) for job in (first, *others)] == [[1], [2, 3], [4]]


async def test_a_batch_has_at_most_max_batch_images(bench: Bench) -> None:
    first = bench.job(0)
    await bench.started()
    large = bench.job(*range(1, 11))
    bench.engine.open.release(4)
    await asyncio.gather(first.done, large.done)
    assert bench.sizes() == [1, 4, 4, 2]
    assert answer(large) == list(range(1, 11))


async def test_images_that_wait_or_run_keep_their_slots(bench: Bench) -> None:
    jobs = [bench.job(1, 2), bench.job(3)]
    await bench.started()
    assert bench.slots.qsize() == NUM_SLOTS - 3
    bench.engine.open.release(2)
    await asyncio.gather(*(job.done for job in jobs))
    await bench.settle()
    assert bench.slots.qsize() == NUM_SLOTS


async def test_a_single_image_does_not_wait_for_a_large_request(bench: Bench) -> None:
    first = bench.job(0)
    await bench.started()
    large = bench.job(*range(1, 21))
    await bench.settle()
    single = bench.job(100)
    bench.engine.open.release(2)
    await asyncio.gather(first.done, single.done)
    assert not large.is_over
    assert 100 in bench.engine.batches[1][:, 0, 0, 0]
    bench.engine.open.release(100)
    await large.done
    assert answer(large) == list(range(1, 21))


async def test_a_window_waits_for_more_images(anyio_backend: str) -> None:
    bench = Bench(BatchPolicy(4, window_s=0.05))
    bench.engine.open.release(10)
    jobs = [bench.job(1)]
    await asyncio.sleep(0.01)
    jobs.append(bench.job(2))
    await asyncio.gather(*(job.done for job in jobs))
    assert bench.sizes() == [2]
    await bench.close()


async def test_a_window_waits_for_no_more_than_a_full_batch(anyio_backend: str) -> None:
    bench = Bench(BatchPolicy(2, window_s=30))
    bench.engine.open.release(10)
    await asyncio.gather(*(job.done for job in (bench.job(1), bench.job(2))))
    await bench.close()


async def test_a_window_counts_from_the_first_image_also_while_the_engine_is_busy(anyio_backend: str) -> None:
    bench = Bench(BatchPolicy(4, window_s=0.2))
    first = bench.job(1)
    await bench.started()
    second = bench.job(2)
    await asyncio.sleep(0.3)
    bench.engine.open.release(1)
    started = time.perf_counter()
    await bench.started()
    assert time.perf_counter() - started < 0.15
    bench.engine.open.release(10)
    await asyncio.gather(first.done, second.done)
    await bench.close()


async def test_features_reach_only_the_job_that_wants_them(bench: Bench) -> None:
    """Also where it shares its batch; a batch without such a job does not fetch them."""
    first = bench.job(0)
    await bench.started()
    wanting, other = bench.job(1, wants_features=True), bench.job(2)
    bench.engine.open.release(2)
    await asyncio.gather(first.done, wanting.done, other.done)
    assert bench.sizes() == [1, 2]
    assert (first.done.result().features, other.done.result().features) == (None, None)
    assert wanting.done.result().features is not None


async def test_a_cancelled_request_is_not_run(bench: Bench) -> None:
    first = bench.job(0)
    await bench.started()
    gone = bench.job(1, 2, 3, 4)
    await bench.settle()
    gone.done.cancel()
    last = bench.job(5)
    bench.engine.open.release(2)
    await asyncio.gather(first.done, last.done)
    assert [batch[:, 0, 0, 0].tolist() for batch in bench.engine.batches] == [[0], [5]]


@pytest.mark.parametrize("where", ["pixels", "answer"])
async def test_a_fault_beside_the_engine_costs_its_batch_and_no_more(
    bench: Bench, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.engine.open.release(10)
    with monkeypatch.context() as patch:
        if where == "pixels":
            patch.setattr(Batcher, "_pixels", lambda *_: 1 / 0)
        else:
            patch.setattr(bench.engine, "run", lambda _: Outputs(np.zeros((0, 1), np.float32), None))
        bad = bench.job(1)
        with pytest.raises(EngineError, match="failed on this batch"):
            await bad.done
    good = bench.job(2)
    await good.done
    assert (answer(good), bench.batcher.is_alive) == ([2], True)


async def test_batches_are_padded_to_the_next_size(anyio_backend: str) -> None:
    bench = Bench(BatchPolicy(4, (1, 2, 4)))
    bench.engine.open.release(10)
    job = bench.job(1, 2, 3)
    await job.done
    assert (bench.sizes(), answer(job)) == ([4], [1, 2, 3])
    assert (bench.engine.batches[0][3] == 1).all(), "a copy of the first image"
    await bench.close()


async def test_discarded_images_are_not_run(bench: Bench) -> None:
    first = bench.job(0)
    await bench.started()
    gone, stays = bench.job(1, 2), bench.job(3)
    gone.done.cancel()
    bench.batcher.discard(gone)
    assert bench.slots.qsize() == NUM_SLOTS - 2, "the image that runs and the one that stays have slots"
    bench.engine.open.release(2)
    await asyncio.gather(first.done, stays.done)
    assert [batch[:, 0, 0, 0].tolist() for batch in bench.engine.batches] == [[0], [3]]


async def test_an_image_that_would_be_late_gives_its_place_to_others(bench: Bench) -> None:
    """A batch of two takes 0.15 s by the model: a deadline in 0.12 s cannot be kept with company, one in 60 s can."""
    first = bench.job(0)
    await bench.started()
    late, fine = bench.job(1, deadline_s=0.12), bench.job(2)
    bench.engine.open.release(2)
    with pytest.raises(DeadlinePassed):
        await late.done
    await asyncio.gather(first.done, fine.done)
    assert [batch[:, 0, 0, 0].tolist() for batch in bench.engine.batches] == [[0], [2]]


async def test_images_that_nobody_waits_for_make_no_other_late(anyio_backend: str) -> None:
    """By the model two images take 15 s, and five take 30."""
    bench = Bench(BatchPolicy(8), image_s=10.0)
    first = bench.job(0)
    await bench.started()
    gone, soon, later = bench.job(1, 2, 3), bench.job(4, deadline_s=20), bench.job(5)
    gone.done.cancel()
    bench.engine.open.release(2)
    await asyncio.gather(first.done, soon.done, later.done)
    assert bench.sizes() == [1, 2]
    await bench.close()


async def test_padding_counts_when_an_image_would_be_late(anyio_backend: str) -> None:
    """By the model two images take 15 s, and the eight that they are padded to take 45."""
    bench = Bench(BatchPolicy(8, (1, 8)), image_s=10.0)
    first = bench.job(0)
    await bench.started()
    soon, later = bench.job(4, deadline_s=20), bench.job(5)
    bench.engine.open.release(2)
    with pytest.raises(DeadlinePassed):
        await soon.done
    await asyncio.gather(first.done, later.done)
    await bench.close()


async def test_an_image_alone_is_run_whatever_the_model_says_of_its_deadline(anyio_backend: str) -> None:
    """Otherwise a model that is wrong would never see a batch again that could correct it."""
    bench = Bench(BatchPolicy(4), image_s=1000.0)
    bench.engine.open.release(1)
    job = bench.job(1, deadline_s=10)
    await job.done
    assert bench.batcher._latency.predict(1) < 1000
    await bench.close()


async def test_a_refused_image_keeps_its_request_from_the_engine(bench: Bench) -> None:
    first = bench.job(0)
    await bench.started()
    job = Job([b""] * 3, time.perf_counter() + 60)
    bench.put(job.tasks[0], 1)
    job.reject(job.tasks[2], UndecodableImage("broken"))
    assert not job.is_over, "the second image has not been looked at"
    job.reject(job.tasks[1], UndecodableImage("broken too"))
    bench.engine.open.release(2)
    with pytest.raises(InputsRejected) as refused:
        await job.done
    assert list(refused.value.rejections) == [1, 2]
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
async def test_a_fault_of_the_engine_costs_its_own_batch_and_no_other(
    bench: Bench, fault: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """Also a fault that ends the engine's thread."""
    first = bench.job(0)
    await bench.started()
    bench.engine.fault = lambda images: fault if 1 in images else None
    bad = bench.job(1)
    bench.engine.open.release(2)
    with pytest.raises(EngineError, match="said so|failed on this batch"):
        await bad.done
    good = bench.job(2)
    bench.engine.open.release(1)
    await asyncio.gather(first.done, good.done)
    assert answer(good) == [2]
    assert bench.batcher.is_alive
    assert (bench.num_deaths, bench.thread.is_alive) == (isinstance(fault, SystemExit), True)
    assert "a batch of 1 images failed" in caplog.text


async def test_an_engine_that_hangs_can_be_seen(bench: Bench) -> None:
    assert bench.batcher.running_s == 0
    job = bench.job(1)
    await bench.started()
    await asyncio.sleep(0.01)
    assert bench.batcher.running_s >= 0.01
    found = [bench.batcher.hangs]
    bench.batcher._running_since = time.perf_counter() - 11  # 10 s at least, and the slowest batch took 0.15 s
    found.append(bench.batcher.hangs)
    bench.batcher._latency.slowest_s = 1.0
    found.append(bench.batcher.hangs)
    bench.batcher._running_since = time.perf_counter() - 21
    assert [*found, bench.batcher.hangs] == [False, True, False, True]
    bench.engine.open.release(1)
    await job.done
    await bench.settle()
    assert (bench.batcher.running_s, bench.batcher.hangs) == (0, False)


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
    assert bench.sizes()[1] == 4, "they were in one batch"


async def test_after_a_fault_of_ours_the_batcher_goes_on(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.engine.open.release(10)
    with monkeypatch.context() as patch:
        patch.setattr(bench.batcher, "_wanted", lambda _: 1 / 0)
        bench.job(1)
        await bench.settle()
    assert "internal error in the batcher; continuing" in caplog.text
    second = bench.job(2)
    async with asyncio.timeout(10):
        await second.done
    assert (answer(second), bench.batcher.is_alive) == ([2], True)
