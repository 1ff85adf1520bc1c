"""The only difference between the two clients: how they call a function with many values, with the results in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from typing import Any, TypeVar

Value = TypeVar("Value")
Result = TypeVar("Result")


def at_least_one(concurrency: int) -> int:
    """The number, if so many requests can be sent at once; raises ValueError if not."""
    if concurrency < 1:
        raise ValueError(f"concurrency is {concurrency}; it must be at least 1")
    return concurrency


async def map_concurrently(
    function: Callable[[Value], Coroutine[Any, Any, Result]], values: Iterator[Value], concurrency: int
) -> AsyncGenerator[Result]:
    """Runs up to `concurrency` calls at once; closing the generator cancels them."""
    running: deque[asyncio.Task[Result]] = deque()
    try:
        while True:
            while len(running) < concurrency:
                value = await asyncio.to_thread(next, values, None)  # in a thread, because it may read files
                if value is None:
                    break
                running.append(asyncio.create_task(function(value)))
            if not running:
                return
            yield await running.popleft()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def map_sequentially(function: Callable[[Value], Result], values: Iterator[Value]) -> Generator[Result]:
    """Runs one call after the other, each when its result is requested."""
    for value in values:
        yield function(value)
