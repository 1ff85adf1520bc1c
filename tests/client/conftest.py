"""Both clients, before the real app in this process or before a service whose answers are written in the test."""

from __future__ import annotations

import asyncio
import functools
import inspect
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import anyio.from_thread
import anyio.to_thread
import httpx
import numpy as np
import orjson
import pytest
from fastapi import FastAPI

from rankone.client import AsyncClient, Client, Retries

URL = "http://service"
QUICK = Retries(first_s=0.0)
INFO = {"dim": 3, "limits": {"max_images": 4, "max_request_bytes": 10_000}}

Handler = Callable[[httpx.Request], httpx.Response]
Ask = Callable[..., Any]


class AppTransport(httpx.BaseTransport):
    """The app for a client that blocks: it is called on the event loop that this thread was started from."""

    def __init__(self, app: FastAPI) -> None:
        self._inner = httpx.ASGITransport(app=app)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def call() -> httpx.Response:
            response = await self._inner.handle_async_request(request)
            return httpx.Response(response.status_code, headers=response.headers, content=await response.aread())

        return anyio.from_thread.run(call)


def in_thread(test: Callable[..., None]) -> Callable[..., Awaitable[None]]:
    """Runs a test that blocks in a thread, while the app has the event loop."""

    @functools.wraps(test)
    async def run(**fixtures: Any) -> None:
        await anyio.to_thread.run_sync(functools.partial(test, **fixtures))

    return run


@pytest.fixture
def client(app: FastAPI) -> Iterator[Client]:
    with Client(URL, transport=AppTransport(app)) as client:
        yield client


@pytest.fixture
async def async_client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(URL, transport=httpx.ASGITransport(app=app), concurrency=3) as client:
        yield client


def ask_with_client(
    handler: Handler, method: str, *arguments: Any, key: str | None = None, allowed_s: float | None = None, **named: Any
) -> Any:
    """What a method of Client returns where `handler` is the service; iterators as lists."""
    transport = httpx.MockTransport(handler)
    with Client(URL, key=key, timeout_s=allowed_s, retries=QUICK, transport=transport) as client:
        result = getattr(client, method)(*arguments, **named)
        return list(result) if inspect.isgenerator(result) else result


def ask_with_async_client(
    handler: Handler, method: str, *arguments: Any, key: str | None = None, allowed_s: float | None = None, **named: Any
) -> Any:
    """The same of AsyncClient."""

    async def ask() -> Any:
        transport = httpx.MockTransport(handler)
        async with AsyncClient(URL, key=key, timeout_s=allowed_s, retries=QUICK, transport=transport) as client:
            result = getattr(client, method)(*arguments, **named)
            return [entry async for entry in result] if inspect.isasyncgen(result) else await result

    return asyncio.run(ask())


@pytest.fixture(params=[ask_with_client, ask_with_async_client], ids=["Client", "AsyncClient"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Every test that takes this runs with both."""
    chosen: Ask = request.param
    return chosen


def json_answer(body: Any, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, headers=headers, content=orjson.dumps(body))


def npy(rows: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(rows, np.float32))
    return buffer.getvalue()
