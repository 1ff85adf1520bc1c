"""How the client for asyncio sends requests. `python tests/client/generate.py` makes sync_transport.py from this file."""

from __future__ import annotations

import asyncio  # async only
import time
from collections.abc import Callable
from typing import Any, Self

import httpx

from rankone.client import connection, results
from rankone.client.concurrency import at_least_one
from rankone.client.connection import DEFAULT_RETRIES, Retries, RetryIf, is_temporary
from rankone.client.errors import Outcome, error_of
from rankone.client.results import Limits, Result


class AsyncTransport:
    """The connections to a service, repeated requests, and what the service says that it takes. See `AsyncClient`."""

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        timeout_s: float | None = None,
        retries: Retries = DEFAULT_RETRIES,
        transport: httpx.AsyncBaseTransport | None = None,
        concurrency: int = 4,  # async only
    ) -> None:
        self._concurrency = at_least_one(concurrency)  # async only
        self._http = httpx.AsyncClient(**connection.http_options(url, key, timeout_s, transport))
        self._retries = retries
        self._known_limits: Limits | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    @property
    def url(self) -> str:
        """The address of the service."""
        return str(self._http.base_url)

    async def _limits(self) -> Limits:
        if self._known_limits is None:
            self._known_limits = await self._request("GET", "/info", Limits.from_json, connection.is_unavailable)
        return self._known_limits

    async def _request(
        self, method: str, path: str, parse: Callable[[Any], Result], retry_if: RetryIf = is_temporary, **arguments: Any
    ) -> Result:
        """Sends a request, again if `retry_if` is true of the outcome, and parses the response."""
        started, num_failed = time.monotonic(), 0
        while True:
            try:
                outcome: Outcome = await self._http.request(method, path, **arguments)
            except httpx.RequestError as error:
                outcome = error
            if isinstance(outcome, httpx.Response) and outcome.is_success:
                return results.parse_response(outcome, parse)
            num_failed += 1
            wait_s = self._retries.wait_s(num_failed, time.monotonic() - started, connection.retry_after_s(outcome))
            if wait_s is None or not retry_if(outcome):
                raise error_of(outcome)
            await asyncio.sleep(wait_s)
