"""A thread of its own for calls that must run one after another, always in the same thread, such as an engine's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")


class LaneDied(RuntimeError):
    """The thread ended under the call; another one has taken its place."""


class Lane:
    """Runs calls in the order they came, in one thread. Should a call end the thread, a new one takes over; `on_death` is told.

    Made and used on one event loop; `close` ends it. A call that never returns does not keep the process.
    """

    def __init__(self, name: str, on_death: Callable[[], None] = lambda: None) -> None:
        self._name, self._on_death = name, on_death
        self._calls: SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = self._start()

    @property
    def is_alive(self) -> bool:
        """The thread runs."""
        return self._thread.is_alive()

    async def __call__(self, call: Callable[..., Result], *arguments: Any) -> Result:
        """The result of `call(*arguments)`, run in the thread; raises what it raises.

        Raises:
            LaneDied: the call ended the thread, by SystemExit for one.
        """
        future: asyncio.Future[Result] = self._loop.create_future()
        self._calls.put((future, lambda: call(*arguments)))
        return await future

    def close(self) -> None:
        """Ends the thread after the call it is in."""
        self._calls.put(None)

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        while (entry := self._calls.get()) is not None:
            future, call = entry
            try:
                result = call()
            except Exception as error:
                self._tell(future, None, error)
            except BaseException as error:
                self._loop.call_soon_threadsafe(self._replace)
                self._tell(future, None, LaneDied(f"the thread {self._name!r} was ended by {error!r}"))
                return
            else:
                self._tell(future, result, None)

    def _tell(self, future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
        def tell() -> None:
            if not future.done():
                future.set_result(result) if error is None else future.set_exception(error)

        self._loop.call_soon_threadsafe(tell)

    def _replace(self) -> None:
        self._on_death()
        self._thread = self._start()
