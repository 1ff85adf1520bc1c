"""Turns of decoders and engine on one CPU."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from rankone.service.inference.policy import BatchPolicy
from rankone.service.inference.shared import CpuArbiter
from tests.service.inference.bench import Bench

pytestmark = pytest.mark.anyio


async def begun_at(arbiter: CpuArbiter) -> float:
    async with arbiter.decoding():
        return time.perf_counter()


async def test_an_image_is_begun_when_the_batch_has_run() -> None:
    arbiter = CpuArbiter(pause_s=60)
    with arbiter.running():
        waiting = asyncio.create_task(begun_at(arbiter))
        await asyncio.sleep(0.02)
        ended_at = time.perf_counter()
        assert not waiting.done()
    assert await waiting >= ended_at


async def test_a_long_batch_does_not_keep_images_from_being_begun() -> None:
    arbiter, started_at = CpuArbiter(pause_s=0.05), time.perf_counter()
    with arbiter.running():
        assert 0.04 < await begun_at(arbiter) - started_at < 10
    with arbiter.running():
        waiting = asyncio.create_task(begun_at(arbiter))
        await asyncio.sleep(0)
        assert not waiting.done(), "the next batch has its own time"
    await waiting


async def test_an_engine_with_a_processor_of_its_own_keeps_nobody_waiting() -> None:
    arbiter = CpuArbiter(pause_s=0)
    with arbiter.running():
        async with asyncio.timeout(10), arbiter.decoding():
            assert not arbiter.is_decoding, "no batch needs to wait"


async def test_images_being_decoded_are_counted_until_they_end_in_whatever_way() -> None:
    arbiter = CpuArbiter(pause_s=60)
    with contextlib.suppress(ZeroDivisionError):
        async with arbiter.decoding():
            assert arbiter.is_decoding
            raise ZeroDivisionError
    assert not arbiter.is_decoding


@pytest.mark.parametrize(("pause_s", "sizes"), [(60.0, [2]), (0.0, [1, 1])])
async def test_a_batch_waits_for_an_image_that_is_being_decoded_on_the_same_cpu(
    anyio_backend: str, pause_s: float, sizes: list[int]
) -> None:
    bench = Bench(BatchPolicy(4), image_s=1000.0, pause_s=pause_s)
    bench.engine.open.release(10)
    async with bench.arbiter.decoding():
        first = bench.job(1, deadline_s=1e6)
        await bench.settle()
    second = bench.job(2, deadline_s=1e6)
    await asyncio.gather(first.done, second.done)
    assert bench.sizes() == sizes
    await bench.close()


async def test_it_waits_for_a_part_of_the_batchs_own_time_at_most(anyio_backend: str) -> None:
    bench = Bench(BatchPolicy(4), image_s=0.5, pause_s=60)
    bench.engine.open.release(10)
    started = time.perf_counter()
    async with bench.arbiter.decoding():
        await bench.job(1).done
    assert 0.05 < time.perf_counter() - started < 0.4
    await bench.close()
