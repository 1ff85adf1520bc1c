"""The engine's thread."""

from __future__ import annotations

import asyncio
import threading

import pytest

from rankone.service.inference.engine_thread import EngineThread, EngineThreadDied

pytestmark = pytest.mark.anyio


async def test_it_runs_one_call_after_another_in_one_thread() -> None:
    thread, order = EngineThread(lambda: None), list[int]()

    def call(number: int) -> str:
        order.append(number)
        return threading.current_thread().name

    assert set(await asyncio.gather(*(thread.run(call, number) for number in range(20)))) == {"engine"}
    assert order == list(range(20))
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 / 0)
    thread.close()


async def test_a_thread_that_is_ended_is_replaced() -> None:
    deaths: list[str] = []
    thread = EngineThread(lambda: deaths.append("engine"))

    def end() -> None:
        raise SystemExit

    first = await thread.run(threading.current_thread)
    ended, after = await asyncio.gather(thread.run(end), thread.run(threading.current_thread), return_exceptions=True)
    assert isinstance(ended, EngineThreadDied)
    assert after is not first
    assert (deaths, thread.is_alive) == (["engine"], True)
    thread.close()


async def test_a_cancelled_call_does_not_stop_the_thread() -> None:
    thread, go_on = EngineThread(lambda: None), threading.Event()
    waiting = asyncio.create_task(thread.run(go_on.wait, 30))
    await asyncio.sleep(0)
    waiting.cancel()
    go_on.set()
    assert await thread.run(lambda: "next") == "next"
    thread.close()
