"""How long a job is worth its work: until its deadline, and while its client is there."""

from __future__ import annotations

import asyncio
from typing import Final

from rankone.service.context import ClientGone, RequestContext
from rankone.service.inference.job import DeadlinePassed, Job

_MOMENT_S: Final = 0.1
_TOO_LATE: Final = "the answer was not there in the time that this request allows"


class Waiting:
    """While it is entered, its job fails when the deadline passes or the client hangs up.

    Most jobs are done within a moment. They have had one timer, and nobody has listened for their clients.
    """

    def __init__(self, job: Job, context: RequestContext) -> None:
        self._job, self._context = job, context
        self._timer: asyncio.TimerHandle | None = None
        self._watch: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(min(_MOMENT_S, self._context.left_s), self._go_on)

    def __exit__(self, *_: object) -> None:
        for ending in (self._timer, self._watch):
            if ending is not None:
                ending.cancel()

    def _go_on(self) -> None:
        self._watch = asyncio.create_task(self._context.on_departure(lambda: self._job.fail(ClientGone())))
        self._timer = asyncio.get_running_loop().call_later(
            self._context.left_s, self._job.fail, DeadlinePassed(_TOO_LATE)
        )
