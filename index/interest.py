"""Whether anybody still waits for what is read: told by whoever has it read, asked by SQLite as it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from rankone.model.errors import RankoneError

IsOver = Callable[[], bool]


class GivenUp(RankoneError):
    """Nobody waits any more for what was being read; the file is as good as before."""


_IS_OVER: Final[ContextVar[IsOver | None]] = ContextVar("is_over", default=None)


@contextmanager
def read_until(is_over: IsOver) -> Iterator[None]:
    """Within, what this thread reads through borrowed readers ends with GivenUp once `is_over` returns True.

    It is called from this thread, every few milliseconds.
    """
    token = _IS_OVER.set(is_over)
    try:
        yield
    finally:
        _IS_OVER.reset(token)


def interest() -> IsOver | None:
    """What tells that nobody waits any more for what this thread reads, if something does."""
    return _IS_OVER.get()
