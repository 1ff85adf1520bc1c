"""The two ways to carry an exchange out: blocking, and on an event loop. What is sent is decided elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx

from rankone.client import routes
from rankone.client.batches import divide
from rankone.client.bulk import Bulk
from rankone.client.call import Call
from rankone.client.connection import DEFAULT_URL, http_options
from rankone.client.exchange import Exchange, OnRejection, Outcome, Wait, answers, perform
from rankone.client.results import Answer, Facts, Source, Value
from rankone.client.retries import Retries

Result = TypeVar("Result")

_RETRIES: Final = Retries()


class Sender:
    """Sends one request after the other, and waits for each."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        key: str | None = None,
        timeout_s: float | None = None,
        retries: Retries = _RETRIES,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(**http_options(url, key, timeout_s), transport=transport)
        self._retries = retries
        self._known: Facts | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes its connections."""
        self._http.close()

    @property
    def url(self) -> str:
        """Where the service is."""
        return str(self._http.base_url)

    def _facts(self) -> Facts:
        if self._known is None:
            self._known = self._ask(routes.facts())
        return self._known

    def _stream(
        self, route: Bulk[Source, Value], inputs: Iterable[Source], on_rejection: OnRejection | None = None
    ) -> Iterator[Answer[Source, Value]]:
        for batch in divide(route, inputs, self._facts()):
            yield from self._run(answers(route, batch, self._retries, on_rejection))

    def _ask(self, call: Call[Result]) -> Result:
        return self._run(perform(call, self._retries))

    def _run(self, steps: Exchange[Result]) -> Result:
        outcome: Outcome | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                result: Result = end.value
                return result
            outcome = self._do(step)

    def _do(self, step: Call[Any] | Wait) -> Outcome | None:
        if isinstance(step, Wait):
            time.sleep(step.seconds)
            return None
        try:
            return self._http.request(step.method, step.path, **step.arguments)
        except httpx.RequestError as error:
            return error


class AsyncSender:
    """Sends on an event loop of asyncio; of a stream, up to `concurrency` requests at once."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        key: str | None = None,
        timeout_s: float | None = None,
        retries: Retries = _RETRIES,
        transport: httpx.AsyncBaseTransport | None = None,
        concurrency: int = 4,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency is {concurrency}; at least one request has to be on its way")
        self._http = httpx.AsyncClient(**http_options(url, key, timeout_s), transport=transport)
        self._retries, self._concurrency = retries, concurrency
        self._known: Facts | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes its connections."""
        await self._http.aclose()

    @property
    def url(self) -> str:
        """Where the service is."""
        return str(self._http.base_url)

    async def _facts(self) -> Facts:
        if self._known is None:
            self._known = await self._ask(routes.facts())
        return self._known

    async def _stream(
        self, route: Bulk[Source, Value], inputs: Iterable[Source], on_rejection: OnRejection | None = None
    ) -> AsyncGenerator[Answer[Source, Value]]:
        batches = divide(route, inputs, await self._facts())
        under_way: deque[asyncio.Task[list[Answer[Source, Value]]]] = deque()
        try:
            while True:
                while len(under_way) < self._concurrency:
                    batch = await asyncio.to_thread(next, batches, None)  # it reads files
                    if batch is None:
                        break
                    exchange = answers(route, batch, self._retries, on_rejection)
                    under_way.append(asyncio.create_task(self._run(exchange)))
                if not under_way:
                    return
                for answer in await under_way.popleft():
                    yield answer
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _ask(self, call: Call[Result]) -> Result:
        return await self._run(perform(call, self._retries))

    async def _run(self, steps: Exchange[Result]) -> Result:
        outcome: Outcome | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                result: Result = end.value
                return result
            outcome = await self._do(step)

    async def _do(self, step: Call[Any] | Wait) -> Outcome | None:
        if isinstance(step, Wait):
            await asyncio.sleep(step.seconds)
            return None
        try:
            return await self._http.request(step.method, step.path, **step.arguments)
        except httpx.RequestError as error:
            return error
