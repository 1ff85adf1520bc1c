"""Both clients, connected to the real app in this process or to a service whose responses are written in the test."""

from __future__ import annotations

import asyncio
import functools
import inspect
import io
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

import anyio.from_thread
import anyio.to_thread
import httpx
import numpy as np
import orjson
import pytest
from fastapi import FastAPI

from rankone.client import AsyncClient, Client, Retries

URL = "http://localhost"
NO_WAITS = Retries(first_s=0.0)
INFO = {"dim": 3, "limits": {"max_images": 4, "max_request_bytes": 10_000}}

Service = Callable[[httpx.Request], httpx.Response]
Call = Callable[..., Any]


class AppTransport(httpx.BaseTransport):
    """The app for a blocking client: it runs on the event loop that started this thread."""

    def __init__(self, app: FastAPI) -> None:
        self._inner = httpx.ASGITransport(app=app)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def respond() -> httpx.Response:
            response = await self._inner.handle_async_request(request)
            return httpx.Response(response.status_code, headers=response.headers, content=await response.aread())

        return anyio.from_thread.run(respond)


def in_thread(test: Callable[..., None]) -> Callable[..., Awaitable[None]]:
    """Runs a blocking test in a thread, while the app has the event loop."""

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


def call_client(
    service: Service, method: str, *arguments: Any, options: Mapping[str, Any] | None = None, **named: Any
) -> Any:
    """Calls a method of a Client with these options; returns its result, as a list if it is a generator."""
    with Client(URL, transport=httpx.MockTransport(service), **{"retries": NO_WAITS, **(options or {})}) as client:
        result = getattr(client, method)(*arguments, **named)
        return list(result) if inspect.isgenerator(result) else result


def call_async_client(
    service: Service, method: str, *arguments: Any, options: Mapping[str, Any] | None = None, **named: Any
) -> Any:
    """The same for AsyncClient."""

    async def run() -> Any:
        transport = httpx.MockTransport(service)
        async with AsyncClient(URL, transport=transport, **{"retries": NO_WAITS, **(options or {})}) as client:
            result = getattr(client, method)(*arguments, **named)
            return [entry async for entry in result] if inspect.isasyncgen(result) else await result

    return asyncio.run(run())


@pytest.fixture(params=[call_client, call_async_client], ids=["Client", "AsyncClient"])
def call(request: pytest.FixtureRequest) -> Call:
    """Runs each test that uses it with both clients."""
    function: Call = request.param
    return function


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that clients have slept; none of them pass, but the clock is set forward."""
    slept: list[float] = []
    monotonic = time.monotonic

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + sum(slept))
    return slept


def json_response(body: Any, status: int = 200, **headers: str) -> httpx.Response:
    kind = {"content-type": "application/problem+json"} if status >= 400 else {}
    return httpx.Response(status, headers={**kind, **headers}, content=orjson.dumps(body))


def npy(rows: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(rows, np.float32))
    return buffer.getvalue()


def npy_response(content: bytes) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "application/x-npy"}, content=content)
