"""A job is given up when nobody waits for it any more, and what tells so ends with the wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from starlette.types import Message

from rankone.service.context import ClientGone, RequestContext
from rankone.service.inference.job import DeadlinePassed, Job
from rankone.service.waiting import Waiting

pytestmark = pytest.mark.anyio

SOON_S = 0.02
LATER_S = 0.15
"""After the moment within which no client is listened for."""
LONG_S = 60.0


async def hang_up() -> Message:
    return {"type": "http.disconnect"}


async def stay() -> Message:
    await asyncio.sleep(LONG_S)
    raise AssertionError("nobody listens for so long")


def waiting_for(allowed_s: float, receive: Callable[[], Awaitable[Message]]) -> tuple[Job, Waiting]:
    deadline = time.perf_counter() + allowed_s
    job = Job([b""], deadline)
    return job, Waiting(job, RequestContext("id", deadline, receive=receive))


@pytest.mark.parametrize("allowed_s", [0.0, SOON_S, LATER_S])
async def test_a_job_fails_at_its_deadline(allowed_s: float) -> None:
    job, waiting = waiting_for(allowed_s, stay)
    with waiting, pytest.raises(DeadlinePassed, match="was not there in the time"):
        await asyncio.wait_for(job.done, 5)
    assert time.perf_counter() >= job.deadline


async def test_a_job_fails_when_its_client_hangs_up() -> None:
    job, waiting = waiting_for(LONG_S, hang_up)
    with waiting, pytest.raises(ClientGone):
        await asyncio.wait_for(job.done, 5)


@pytest.mark.parametrize("waits_s", [0.0, LATER_S])
async def test_nothing_of_it_is_left_when_the_wait_is_over(waits_s: float) -> None:
    """Neither the deadline nor the client ends a job for which nobody waits, whatever was begun to watch for them."""
    job, waiting = waiting_for(2 * LATER_S, stay)
    before = asyncio.all_tasks()
    with waiting:
        await asyncio.sleep(waits_s)
    await asyncio.sleep(2 * LATER_S)
    assert not job.is_over
    assert asyncio.all_tasks() == before
