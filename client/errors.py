"""The error that every method of a client raises, and how it is read from a failed request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import httpx
import orjson

from rankone.model.errors import RankoneError

Outcome = httpx.Response | httpx.RequestError
"""What came of a request: a response, or the reason why there is none."""


@dataclass(frozen=True)
class Fault:
    """An input that cannot be used, by its index among all inputs of the call, and the reason."""

    index: int
    reason: str


class ServiceError(RankoneError, RuntimeError):
    """The service answered with a problem; with status 0, it could not be reached or an input could not be read.

    `errors` names the inputs at fault if the problem is with single inputs. `num_done` is the number of inputs of the call that
    were answered before, and whose items are on the service's disk.
    """

    num_done = 0

    def __init__(self, status: int, detail: str, errors: Sequence[Fault] = ()) -> None:
        super().__init__(status, detail, tuple(errors))
        self.status, self.detail, self.errors = status, detail, tuple(errors)

    def __str__(self) -> str:
        sentence = f"{self.status}: {self.detail}" if self.status else self.detail
        return f"{sentence} (the {self.num_done} inputs before were answered)" if self.num_done else sentence


def is_problem(response: httpx.Response) -> bool:
    """Whether an error comes from the service itself, and not from something between it and the client."""
    kind: str = response.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower() == "application/problem+json"


def error_of(outcome: Outcome) -> ServiceError:
    """The error for a failed request."""
    if isinstance(outcome, httpx.RequestError):
        timed_out = isinstance(outcome, httpx.ReadTimeout | httpx.WriteTimeout)
        problem = "the service did not answer in time" if timed_out else "no service answers"
        return ServiceError(0, f"{problem} at {outcome.request.url}: {str(outcome) or type(outcome).__name__}")
    try:
        body = orjson.loads(outcome.content)
        faults = [Fault(int(fault["index"]), str(fault["reason"])) for fault in body.get("errors") or ()]
        return ServiceError(outcome.status_code, str(body["detail"]), faults)
    except (KeyError, TypeError, ValueError, AttributeError):  # not problem+json but, for example, a proxy's page
        return ServiceError(outcome.status_code, outcome.text[:200] or outcome.reason_phrase)
