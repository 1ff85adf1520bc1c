"""What goes wrong between a client and its service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import httpx
import orjson

from rankone.model.errors import RankoneError


@dataclass(frozen=True)
class Fault:
    """One input that cannot be used, counted among all inputs of the call, and why."""

    index: int
    reason: str


class ServiceError(RankoneError, RuntimeError):
    """The service answered with a problem; with status 0, it could not be reached or an input could not be read.

    `errors` names the inputs at fault, where single ones are.
    """

    def __init__(self, status: int, detail: str, errors: Sequence[Fault] = ()) -> None:
        super().__init__(f"{status}: {detail}" if status else detail)
        self.status, self.detail, self.errors = status, detail, tuple(errors)


def error_of(outcome: httpx.Response | httpx.RequestError) -> ServiceError:
    """The error that an unsuccessful answer, or none at all, stands for."""
    if isinstance(outcome, httpx.Response):
        return _problem(outcome)
    reason = str(outcome) or type(outcome).__name__
    if isinstance(outcome, httpx.ReadTimeout | httpx.WriteTimeout):
        return ServiceError(0, f"the service did not answer in time at {outcome.request.url}: {reason}")
    return ServiceError(0, f"no service answers at {outcome.request.url}: {reason}")


def _problem(response: httpx.Response) -> ServiceError:
    try:
        problem = orjson.loads(response.content)
        faults = [Fault(int(fault["index"]), str(fault["reason"])) for fault in problem.get("errors") or ()]
        return ServiceError(response.status_code, str(problem["detail"]), faults)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):  # a proxy's page, not a problem
        return ServiceError(response.status_code, response.text[:200] or response.reason_phrase)
