"""Reading an index for a request: in threads of its own, and only as long as the request is not cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

from rankone.index import cancellable

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

LOOKUPS: Final = ThreadPoolExecutor(4, "rankone-lookup")
"""Reads of items by their ids or one after the other: they read as much as they answer."""
SCANS: Final = ThreadPoolExecutor(2, "rankone-scan")
"""Reads of all items, to find those that match a filter: they take seconds, and must not keep lookups waiting."""


async def in_thread(
    pool: ThreadPoolExecutor,
    read: Callable[Arguments, Result],
    *arguments: Arguments.args,
    **options: Arguments.kwargs,
) -> Result:
    """What `read` returns. If the request is cancelled, the read is interrupted; if it has not begun, it never does."""
    is_cancelled = threading.Event()

    def run() -> Result:
        with cancellable(is_cancelled.is_set):
            return read(*arguments, **options)

    work = pool.submit(run)
    future = asyncio.wrap_future(work)
    try:
        await asyncio.wait([future])
    except asyncio.CancelledError:
        is_cancelled.set()
        if not work.cancel():  # it has a thread: the request ends after the thread, or threads would pile up
            await asyncio.wait([future])
            future.exception()
        raise
    return future.result()
