"""Blocking requests. Generated from asynchronous_transport.py by `python tests/client/generate.py`: do not edit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Self

import httpx

from rankone.client import connection, results
from rankone.client.connection import DEFAULT_RETRIES, Retries, RetryIf, is_temporary
from rankone.client.errors import Outcome, error_of
from rankone.client.results import Limits, Result


class Transport:
    """The connections to a service, repeated requests, and what the service says that it takes. See `Client`."""

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        timeout_s: float | None = None,
        retries: Retries = DEFAULT_RETRIES,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(**connection.http_options(url, key, timeout_s, transport))
        self._retries = retries
        self._known_limits: Limits | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    @property
    def url(self) -> str:
        """The address of the service."""
        return str(self._http.base_url)

    def _limits(self) -> Limits:
        if self._known_limits is None:
            self._known_limits = self._request("GET", "/info", Limits.from_json, connection.is_unavailable)
        return self._known_limits

    def _request(
        self, method: str, path: str, parse: Callable[[Any], Result], retry_if: RetryIf = is_temporary, **arguments: Any
    ) -> Result:
        """Sends a request, again if `retry_if` is true of the outcome, and parses the response."""
        started, num_failed = time.monotonic(), 0
        while True:
            try:
                outcome: Outcome = self._http.request(method, path, **arguments)
            except httpx.RequestError as error:
                outcome = error
            if isinstance(outcome, httpx.Response) and outcome.is_success:
                return results.parse_response(outcome, parse)
            num_failed += 1
            wait_s = self._retries.wait_s(num_failed, time.monotonic() - started, connection.retry_after_s(outcome))
            if wait_s is None or not retry_if(outcome):
                raise error_of(outcome)
            time.sleep(wait_s)
