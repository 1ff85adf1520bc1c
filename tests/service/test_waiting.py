"""What a request watches while it waits is let go of when it waits no more."""

from __future__ import annotations

import asyncio
import time

import pytest
from starlette.types import Message

from service.batching.job import DeadlinePassed, Job
from service.context import RequestContext

pytestmark = pytest.mark.anyio

SOON_S = 0.02


async def test_a_job_fails_at_its_deadline_while_it_is_waited_for() -> None:
    job = Job([b""], time.perf_counter() + SOON_S)
    with job.until_deadline(), pytest.raises(DeadlinePassed, match="was not there in the time"):
        await asyncio.wait_for(job.done, 5)


async def test_and_not_afterwards() -> None:
    job = Job([b""], time.perf_counter() + SOON_S)
    with job.until_deadline():
        pass
    await asyncio.sleep(3 * SOON_S)
    assert not job.is_over


@pytest.mark.parametrize("waits", [True, False])
async def test_a_departure_is_heard_while_it_matters(waits: bool) -> None:
    departed = asyncio.Event()

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    context = RequestContext("id", time.perf_counter() + 60, receive=receive)
    with context.on_departure(departed.set):
        if waits:
            await asyncio.wait_for(departed.wait(), 30)
    await asyncio.sleep(0.3)
    assert departed.is_set() == waits
