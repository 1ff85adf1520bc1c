"""What changes while the service runs: which model answers, and whether it is coming to its end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from rankone.service.runtime import Runtime


class ServiceState:
    """The runtime being served. A request keeps the one that it began with until it ends.

    The service listens before it has one, and `runtime` is then None.
    """

    def __init__(self) -> None:
        self.runtime: Runtime | None = None
        self.is_draining = False
        self._leases: Counter[Runtime] = Counter()
        self._returned = asyncio.Event()

    @contextmanager
    def leased(self) -> Iterator[Runtime | None]:
        """The runtime for one request, which stays in working order while the block runs."""
        runtime = self.runtime
        if runtime is None:
            yield None
            return
        self._leases[runtime] += 1
        try:
            yield runtime
        finally:
            self._leases[runtime] -= 1
            self._returned.set()

    def replace(self, runtime: Runtime | None) -> Runtime | None:
        """Serves `runtime` from now on; returns what was served before, which is to be retired."""
        before, self.runtime = self.runtime, runtime
        return before

    async def retire(self, runtime: Runtime) -> None:
        """Closes a runtime that is not served any more when it has answered its last request."""
        while self._leases[runtime]:
            self._returned.clear()
            await self._returned.wait()
        del self._leases[runtime]
        await runtime.close()
