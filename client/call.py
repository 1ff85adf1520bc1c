"""One request as a value: what is sent, how its answer is read, and when it may be sent again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
import orjson

from rankone.client.errors import ServiceError
from rankone.client.retries import IDEMPOTENT, Failure

Result = TypeVar("Result")
Json = dict[str, Any]


@dataclass(frozen=True)
class Call(Generic[Result]):
    """One request; `arguments` are httpx's, `read` takes the answer, `again_after` says when it may be sent again."""

    method: str
    path: str
    read: Callable[[httpx.Response], Result]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    again_after: frozenset[Failure] = IDEMPOTENT

    def result(self, response: httpx.Response) -> Result:
        """What a successful answer says.

        Raises:
            ServiceError: it is not of the form that was agreed.
        """
        try:
            return self.read(response)
        except (KeyError, TypeError, ValueError, EOFError) as error:
            where = f"{self.method} {self.path}"
            raise ServiceError(response.status_code, f"the answer to {where} cannot be read: {error!r}") from error


def path_of(index: str, *parts: str) -> str:
    """The path of an index, or of something in it."""
    return "/".join(["/indexes", *(quote(part, safe="") for part in (index, *parts))])


def json_of(response: httpx.Response) -> Json:
    """The JSON object of an answer."""
    return dict(orjson.loads(response.content))


def json_body(body: Any) -> Json:
    """The arguments of httpx for a JSON body, written by orjson."""
    return {"content": orjson.dumps(body), "headers": {"content-type": "application/json"}}
