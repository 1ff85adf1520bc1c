"""What is sent, in which order, and when again: generators that yield what has to be done and are sent what came of it.

They do no input or output of their own; `Client` and `AsyncClient` do it for them, each in its way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpx

from rankone.client import routes
from rankone.client.batches import Batch
from rankone.client.bulk import Bulk
from rankone.client.call import Call
from rankone.client.errors import Fault, ServiceError, error_of
from rankone.client.results import Answer, Rejection, Source, Value
from rankone.client.retries import Retries, asked_s, failure_of

Result = TypeVar("Result")
Outcome = httpx.Response | httpx.RequestError
OnRejection = Callable[[Rejection[Any]], None]

_POLL_S: Final = 0.1
_IDS: Final = 1000
_NOT_READY: Final = httpx.codes.SERVICE_UNAVAILABLE


@dataclass(frozen=True)
class Wait:
    """Nothing is to be done for a while."""

    seconds: float


Exchange = Generator[Call[Any] | Wait, Outcome | None, Result]


def perform(call: Call[Result], retries: Retries) -> Exchange[Result]:
    """Sends one request, again where that is safe and may help.

    Raises:
        ServiceError: the service refused, could not be reached, or its answer cannot be read.
    """
    started, num_failed = time.monotonic(), 0
    while True:
        outcome = yield call
        assert outcome is not None
        if isinstance(outcome, httpx.Response) and outcome.is_success:
            return call.result(outcome)
        num_failed += 1
        wait_s = None
        if failure_of(outcome) in call.again_after:
            wait_s = retries.wait_s(num_failed, time.monotonic() - started, asked_s(outcome))
        if wait_s is None:
            raise error_of(outcome)
        yield Wait(wait_s)


def answers(
    bulk: Bulk[Source, Value], batch: Batch[Source], retries: Retries, on_rejection: OnRejection | None
) -> Exchange[list[Answer[Source, Value]]]:
    """Sends a batch; where single inputs are at fault and somebody wants to hear of them, again without these.

    Raises:
        ServiceError: what `perform` raises; also for inputs at fault, by their places among all, without `on_rejection`.
    """
    _report(bulk, batch.rejections, on_rejection)
    parts = batch.parts
    while parts:
        try:
            values = yield from perform(bulk.call([part.content for part in parts]), retries)
        except ServiceError as error:
            reasons = {fault.index: fault.reason for fault in error.errors if 0 <= fault.index < len(parts)}
            if not reasons:
                raise
            rejections = [
                Rejection(parts[place].index, parts[place].source, reason, error.status)
                for place, reason in reasons.items()
            ]
            _report(bulk, rejections, on_rejection)
            parts = [part for place, part in enumerate(parts) if place not in reasons]
        else:
            return [Answer(part.index, part.source, value) for part, value in zip(parts, values, strict=True)]
    return []


def delete(index: str, ids: Sequence[str], retries: Retries) -> Exchange[int]:
    """Deletes items, some ids a request; how many there were."""
    deleted = 0
    for start in range(0, len(ids), _IDS):
        deleted += yield from perform(routes.delete(index, ids[start : start + _IDS]), retries)
    return deleted


def is_ready(retries: Retries) -> Exchange[bool]:
    """Whether the service is ready.

    Raises:
        ServiceError: nobody is there to say.
    """
    try:
        yield from perform(routes.ready(), retries)
    except ServiceError as error:
        if error.status == _NOT_READY:
            return False
        raise
    return True


def until_ready(timeout_s: float, retries: Retries) -> Exchange[None]:
    """Asks until the service is ready; after `timeout_s`, raises what it said last."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            yield from perform(routes.ready(), retries)
        except ServiceError:
            if time.monotonic() > deadline:
                raise
            yield Wait(_POLL_S)
        else:
            return


def _report(
    bulk: Bulk[Source, Value], rejections: Sequence[Rejection[Source]], on_rejection: OnRejection | None
) -> None:
    if not rejections:
        return
    if on_rejection is None:
        first = rejections[0]
        faults = [Fault(rejection.index, rejection.reason) for rejection in rejections]
        raise ServiceError(first.status, f"{bulk.kind} {first.index}: {first.reason}", faults)
    for rejection in rejections:
        on_rejection(rejection)
