"""The thread that runs the engine: engines must be called from one thread, one call at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
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
        self._calls = SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None]()
        self._loop = asyncio.get_running_loop()
        self._thread = self._start()

    @property
    def is_alive(self) -> bool:
        """The thread runs."""
        return self._thread.is_alive()

    async def run(self, call: Callable[..., Result], *arguments: Any) -> Result:
        """The result of `call(*arguments)`; raises what it raises.

        Raises:
            EngineThreadDied: the call ended the thread.
        """
        future: asyncio.Future[Result] = self._loop.create_future()
        self._calls.put((future, lambda: call(*arguments)))
        return await future

    def close(self) -> None:
        """Ends the thread after the calls that are waiting."""
        self._calls.put(None)

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        thread.start()
        return thread

    def _serve(self) -> None:
        while (entry := self._calls.get()) is not None:
            future, call = entry
            try:
                result = call()
            except Exception as error:
                self._loop.call_soon_threadsafe(_resolve, future, None, error)
            except BaseException as error:
                self._loop.call_soon_threadsafe(self._replace)
                died = EngineThreadDied(f"the engine's thread was ended by {error!r}")
                self._loop.call_soon_threadsafe(_resolve, future, None, died)
                return
            else:
                self._loop.call_soon_threadsafe(_resolve, future, result, None)

    def _replace(self) -> None:
        self._on_death()
        self._thread = self._start()


def _resolve(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if not future.done():
        future.set_result(result) if error is None else future.set_exception(error)
