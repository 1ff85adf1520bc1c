"""The batcher with an engine of the test's own, which waits until it is told to go on: every order is the test's to choose."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest

from service.batching.batcher import Batcher
from service.batching.job import DeadlinePassed, Job, Task
from service.batching.lane import Lane
from service.batching.latency import LatencyModel
from service.batching.sizes import Sizes
from service.batching.turns import Turns
from service.batching.worth import Worth
from service.decoding.slots import Slots
from service.engine import EngineError, EngineOutOfMemory, Outputs
from service.engine.base import Images, Precision
from service.metrics import Metrics

pytestmark = pytest.mark.anyio

SHAPE = (3, 2, 2)


class Gate:
    """An engine that answers with the first value of each image; each run waits for `open`."""

    name, provider = "gate", "test"
    precision: Precision = "float32"

    def __init__(self) -> None:
        self.batches: list[Images] = []
        self.started, self.open = threading.Semaphore(0), threading.Semaphore(0)
        self.fault: Callable[[Images], BaseException | None] = lambda _: None

    def run(self, images: Images) -> Outputs:
        self.batches.append(images)
        self.started.release()
        assert self.open.acquire(timeout=30)
        if (fault := self.fault(images)) is not None:
            raise fault
        return Outputs(images[:, 0, 0, :1].copy(), None)

    def close(self) -> None: ...


class Bench:
    """A batcher with its surroundings, and images whose pixels are all one number.

    One image takes `image_s`; each other one of its batch half of that, or as much where batches gain nothing.
    """

    def __init__(
        self, sizes: Sizes, window_s: float = 0.0, image_s: float = 0.1, pause_s: float = 0.0, other: float = 0.5
    ) -> None:
        self.num_deaths = 0
        self.engine, self.lane, self.slots = Gate(), Lane("engine", self.bury), Slots(64, SHAPE)
        self.turns, latency = Turns(pause_s, sizes.max_batch), LatencyModel((1, 2), (image_s, (1 + other) * image_s))
        worth = Worth(sizes.max_batch, latency, always=window_s > 0)
        self.batcher = Batcher(
            self.engine, self.lane, self.slots, sizes, worth, window_s, latency, self.turns, Metrics()
        )

    def bury(self) -> None:
        self.num_deaths += 1

    def job(self, *values: float, deadline_s: float = 60.0) -> Job:
        job = Job([b""] * len(values), time.perf_counter() + deadline_s)
        for task, value in zip(job.tasks, values, strict=True):
            self.put(task, value)
        return job

    def put(self, task: Task, value: float) -> None:
        task.slot = self.slots.acquire()
        self.slots[task.slot][:] = value
        task.job.decoded(task)
        self.batcher.put(task)

    async def started(self) -> None:
        assert await asyncio.to_thread(self.engine.started.acquire, timeout=30)

    async def settle(self) -> None:
        """Lets everything that can happen without the engine happen."""
        await asyncio.sleep(0.05)

    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.engine.batches]

    async def close(self) -> None:
        self.engine.open.release(1000)
        await self.batcher.close()
        self.lane.close()


@pytest.fixture
async def bench(anyio_backend: str) -> AsyncIterator[Bench]:
    bench = Bench(Sizes(4))
    yield bench
    assert bench.slots.num_free == 64
    await bench.close()


def answer(job: Job) -> list[float]:
    return [float(value) for value in job.done.result().embedding[:, 0]]


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


async def test_images_go_one_by_one_where_a_batch_takes_as_long_as_its_images(anyio_backend: str) -> None:
    bench = Bench(Sizes(4), other=1.0)
    job = bench.job(*range(7))
    await bench.started()
    await bench.settle()
    assert bench.slots.num_free == 64 - 5, "one runs, and one is prepared ahead"
    bench.engine.open.release(7)
    await job.done
    assert (bench.sizes(), answer(job)) == ([1] * 7, list(range(7)))
    await bench.close()


async def test_where_a_batch_saves_little_it_takes_two_that_wait(anyio_backend: str) -> None:
    """Those count that are not decoded yet."""
    bench = Bench(Sizes(4), other=0.95)
    bench.turns.num_queued, bench.turns.num_decoding = lambda: 2, lambda: 1
    job = bench.job(*range(9))
    bench.engine.open.release(10)
    await job.done
    assert bench.sizes() == [4, 4, 1], "of twelve, of eight, of four"
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
    from model.preprocessing import UndecodableImage
    from service.rejections import InputsRejected

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


async def test_nan_in_an_answer_is_an_error(bench: Bench) -> None:
    bench.engine.open.release(10)
    job = bench.job(np.nan)
    with pytest.raises(EngineError, match="NaN or infinity"):
        await job.done


async def test_an_engine_waits_for_what_is_being_decoded_where_that_shares_its_processor(anyio_backend: str) -> None:
    """On a GPU it does not."""
    for pause_s, sizes in ((1.0, [2]), (0.0, [1, 1])):
        bench = Bench(Sizes(4), image_s=1e3, pause_s=pause_s)
        bench.engine.open.release(10)
        bench.turns.num_decoding = lambda: 1
        jobs = [bench.job(1, deadline_s=1e6)]
        await bench.settle()
        bench.turns.num_decoding = lambda: 0
        jobs.append(bench.job(2, deadline_s=1e6))
        await asyncio.gather(*(job.done for job in jobs))
        assert bench.sizes() == sizes
        await bench.close()


async def test_it_waits_a_tenth_of_what_is_there_and_never_past_a_deadline(anyio_backend: str) -> None:
    bench = Bench(Sizes(4), image_s=10, pause_s=1.0)
    bench.turns.num_decoding = lambda: 1
    now = time.perf_counter()
    bench.job(1, 2, deadline_s=1e6)
    assert bench.batcher._closes_at(now) == pytest.approx(now + 1.5, abs=1e-6)
    hurried = bench.job(3, deadline_s=21)
    assert bench.batcher._closes_at(now) == pytest.approx(hurried.deadline - 20, abs=1e-6)
    bench.job(4)
    assert bench.batcher._closes_at(now) == 0
    await bench.close()


async def test_one_by_one_nothing_is_waited_for(anyio_backend: str) -> None:
    bench = Bench(Sizes(4), image_s=1e3, pause_s=30, other=1.0)
    bench.turns.num_decoding = lambda: 1
    job = bench.job(1, deadline_s=1e6)
    assert bench.batcher._closes_at(time.perf_counter()) == 0
    bench.engine.open.release(1)
    await job.done
    await bench.close()


async def test_no_image_is_begun_while_a_batch_runs_and_then_as_many_as_make_one(anyio_backend: str) -> None:
    bench = Bench(Sizes(2), pause_s=30)
    turns, told = bench.turns, list[bool]()
    turns.on_decoders = lambda: told.append(turns.may_begin())
    assert turns.may_begin()
    turns.num_decoding = lambda: 2
    assert not turns.may_begin(), "two are enough for a batch"
    turns.num_decoding = lambda: 0
    job = bench.job(1)
    await bench.started()
    assert not turns.may_begin()
    bench.engine.open.release(1)
    await job.done
    await bench.settle()
    assert told == [True]
    await bench.close()


async def test_a_long_batch_does_not_keep_images_from_being_begun(anyio_backend: str) -> None:
    bench = Bench(Sizes(2), pause_s=0.05)
    told = asyncio.Event()
    bench.turns.on_decoders = lambda: told.set() if bench.turns.may_begin() else None
    job = bench.job(1)
    await bench.started()
    await asyncio.wait_for(told.wait(), 30)
    bench.turns.num_decoding = lambda: 10
    assert bench.turns.may_begin()
    bench.engine.open.release(1)
    await job.done
    await bench.close()


async def test_batches_one_after_another_keep_images_from_being_begun_no_longer_than_one(anyio_backend: str) -> None:
    """The time runs from the first of them on, and starts again when the decoders have had their turn."""
    turns, told = Turns(0.05, 2), asyncio.Event()
    turns.take()
    turns.take()
    turns.give_back()
    turns.on_decoders = told.set
    assert not turns.may_begin()
    await asyncio.wait_for(told.wait(), 30)
    assert (turns.is_overdue, turns.may_begin()) == (True, True)
    turns.give_back()
    turns.take()
    turns.take()
    assert (turns.is_overdue, turns.may_begin()) == (False, False)
    turns.give_back()
    turns.give_back()
    told.clear()
    await asyncio.sleep(0.1)
    assert not told.is_set(), "a turn that came is not missed later"


async def test_nothing_is_prepared_that_would_put_an_overdue_turn_off(anyio_backend: str) -> None:
    bench = Bench(Sizes(4), pause_s=30, other=1.0)
    first = bench.job(0)
    await bench.started()
    bench.turns.is_overdue = True
    second = bench.job(1)
    await bench.settle()
    assert bench.slots.num_free == 64 - 1, "it is still in its slot"
    bench.engine.open.release(2)
    await asyncio.gather(first.done, second.done)
    await bench.close()


async def test_a_batch_that_cannot_be_put_together_gives_its_turn_back(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(Sizes(2), pause_s=30)
    monkeypatch.setattr(bench.batcher, "_copied", lambda tasks: 1 / 0)
    with pytest.raises(EngineError):
        await bench.job(1).done
    assert bench.turns.may_begin()
    await bench.close()
