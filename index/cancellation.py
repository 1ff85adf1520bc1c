"""Ends reads that were cancelled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, TypeVar

Found = TypeVar("Found")

_is_cancelled: Final[ContextVar[Callable[[], bool] | None]] = ContextVar("is_cancelled", default=None)


@contextmanager
def cancellable(is_cancelled: Callable[[], bool]) -> Iterator[None]:
    """Inside this block, reads by this thread end with `Cancelled` once `is_cancelled` returns True.

    It is called every few milliseconds while a database works.
    """
    token = _is_cancelled.set(is_cancelled)
    try:
        yield
    finally:
        _is_cancelled.reset(token)


def cancelled_by() -> Callable[[], bool] | None:
    """What the `cancellable` block that this thread is in asks; None outside of any."""
    return _is_cancelled.get()


def should_stop() -> bool:
    """Whether the `cancellable` block that this thread is in has been cancelled."""
    is_cancelled = cancelled_by()
    return is_cancelled is not None and is_cancelled()


def answered_by(threads: ThreadPoolExecutor, work: Callable[[], Found]) -> Future[Found]:
    """What the work finds, done by one of the threads; cancelling the future ends the reads in it."""
    future: Future[Found] = Future()

    def answer() -> None:
        if future.cancelled():
            return
        try:
            with cancellable(future.cancelled):
                found = work()
        except Exception as error:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
            return
        if future.set_running_or_notify_cancel():
            future.set_result(found)

    threads.submit(answer)
    return future
