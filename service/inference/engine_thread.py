"""The thread that runs the engine: engines must be called from one thread, one call at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")


class EngineThreadDied(RuntimeError):
    """The call ended the thread; another thread has taken its place."""


class EngineThread:
    """Runs calls one after another in one thread, which is replaced should a call end it, as SystemExit does.

    It is a daemon: an engine that hangs does not keep the process from ending.

    Args:
        on_death: called each time that the thread is replaced.
    """

    def __init__(self, on_death: Callable[[], None]) -> None:
        self._on_death = on_death
        self._calls = SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]()
        self._start()

    @property
    def is_alive(self) -> bool:
        """The thread runs."""
        return self._thread.is_alive()

    async def run(self, call: Callable[..., Result], *arguments: Any) -> Result:
        """The result of `call(*arguments)`; raises what it raises.

        Raises:
            EngineThreadDied: the call ended the thread.
        """
        future = Future[Result]()
        self._calls.put((future, partial(call, *arguments)))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Ends the thread after the calls that are waiting."""
        self._calls.put(None)

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while (entry := self._calls.get()) is not None:
            future, call = entry
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except Exception as error:
                future.set_exception(error)
            except BaseException as error:
                self._start()
                self._on_death()
                future.set_exception(EngineThreadDied(f"the engine's thread was ended by {error!r}"))
                return
