"""Reading an index for a request: in few threads that do nothing else, until its deadline, and while its client is there."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from rankone.index.interest import GivenUp, read_until
from rankone.service.context import ClientGone, current
from rankone.service.inference.job import DeadlinePassed

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_TOO_LATE: Final = "the index could not be read in the time that this request allows"


class Reads:
    """Reads of one sort, up to `num_threads` of them at once; whoever comes later waits.

    They keep neither those of another sort waiting, nor the threads in which every request's JSON is parsed and written.
    """

    def __init__(self, name: str, num_threads: int) -> None:
        self._limiter_of_loop = RunVar[anyio.CapacityLimiter](name)
        self._num_threads = num_threads

    async def __call__(
        self, read: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
    ) -> Result:
        """What `read` returns, for the current request; what has not been begun is not, when nobody waits for it any more.

        Raises:
            DeadlinePassed: it would come too late.
            ClientGone: the client hung up.
        """
        context, has_left = current(), threading.Event()

        def is_over() -> bool:
            return has_left.is_set() or time.perf_counter() >= context.deadline

        def run() -> Result:
            if is_over():
                raise GivenUp
            with read_until(is_over):
                return read(*arguments, **options)

        listening = asyncio.create_task(context.on_departure(has_left.set))
        try:
            with anyio.move_on_after(context.left_s):  # while it waits for a thread: one that runs sees to it itself
                return await anyio.to_thread.run_sync(run, limiter=self._limiter())
        except GivenUp:
            if has_left.is_set():
                raise ClientGone from None
        finally:
            listening.cancel()
        raise DeadlinePassed(_TOO_LATE)

    def _limiter(self) -> anyio.CapacityLimiter:
        limiter = self._limiter_of_loop.get(None)
        if limiter is None:
            limiter = anyio.CapacityLimiter(self._num_threads)
            self._limiter_of_loop.set(limiter)
        return limiter


LOOKUPS: Final = Reads("lookups", 4)
"""Of items by their ids or one after the other: as much as is answered is read."""
SCANS: Final = Reads("scans", 2)
"""Of all items, to find those that a filter holds for: seconds, each on a processor of its own."""
