"""The engine and the decoders on one processor: who waits for whom, and for how long."""

from __future__ import annotations

import asyncio
import time

import pytest

from rankone.model.engine import EngineError
from rankone.service.batching.sizes import Sizes
from rankone.service.batching.turns import Turns
from tests.service.batching.bench import Bench

pytestmark = pytest.mark.anyio


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


async def test_a_batch_that_is_to_have_one_image_waits_for_no_other(anyio_backend: str) -> None:
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


async def test_images_that_take_long_to_decode_do_not_keep_others_from_being_begun(anyio_backend: str) -> None:
    """The engine has nothing to do meanwhile, so no batch tells that the decoders' turn has not come."""
    turns, told = Turns(0.05, 2), asyncio.Event()
    turns.num_decoding, turns.on_decoders = lambda: 2, told.set
    assert not turns.may_begin()
    await asyncio.wait_for(told.wait(), 30)
    assert turns.may_begin()
    turns.take()
    turns.give_back()
    assert not turns.may_begin(), "and their turn is over when a batch has run"


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
