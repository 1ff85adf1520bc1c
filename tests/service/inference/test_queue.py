"""The queue that is fair between requests."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict

import pytest

from rankone.service.inference.job import FairQueue, Job, Task

pytestmark = pytest.mark.anyio


def job(num_images: int) -> Job:
    return Job([b""] * num_images, time.perf_counter() + 60)


async def test_jobs_take_turns_and_keep_their_own_order() -> None:
    many, one, two = job(4), job(1), job(2)
    queue = FairQueue()
    for task in (*many.tasks, *one.tasks, *two.tasks):
        queue.put_nowait(task)
    popped = [queue.get_nowait() for _ in range(queue.qsize())]
    assert [(task.job, task.index) for task in popped] == [
        (many, 0), (one, 0), (two, 0), (many, 1), (two, 1), (many, 2), (many, 3),
    ]  # fmt: skip
    with pytest.raises(asyncio.QueueEmpty):
        queue.get_nowait()


async def test_a_single_image_waits_for_one_turn_of_a_large_request_at_most() -> None:
    large, single, queue = job(64), job(1), FairQueue()
    for task in large.tasks:
        queue.put_nowait(task)
    queue.get_nowait()
    queue.put_nowait(single.tasks[0])
    assert queue.get_nowait().job is large
    assert queue.get_nowait().job is single


async def test_a_discarded_job_leaves_the_others_as_they_were() -> None:
    first, second, queue = job(3), job(2), FairQueue()
    for task in (*first.tasks, *second.tasks):
        queue.put_nowait(task)
    queue.get_nowait()
    assert [task.index for task in queue.discard(first)] == [1, 2]
    assert queue.discard(first) == []
    assert [queue.get_nowait().job for _ in range(queue.qsize())] == [second, second]


async def test_any_order_of_calls_against_lists() -> None:
    """Nothing is lost, given twice or out of its job's order."""
    chance, queue, jobs = random.Random(0), FairQueue(), [job(50) for _ in range(5)]
    pushed: dict[Job, int] = defaultdict(int)
    popped: dict[Job, list[Task]] = defaultdict(list)
    for _ in range(2000):
        one = chance.choice(jobs)
        if chance.random() < 0.5 and pushed[one] < 50:
            queue.put_nowait(one.tasks[pushed[one]])
            pushed[one] += 1
        elif not queue.empty():
            task = queue.get_nowait()
            popped[task.job].append(task)
        assert queue.qsize() == sum(pushed.values()) - sum(map(len, popped.values()))
    for tasks in popped.values():
        assert [task.index for task in tasks] == list(range(len(tasks)))


async def test_who_waits_is_woken_by_the_next_image(anyio_backend: str) -> None:
    queue, one = FairQueue(), job(1)
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.put_nowait(one.tasks[0])
    assert await waiting is one.tasks[0]
