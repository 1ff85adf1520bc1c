"""Everything a request can end with other than success, as `application/problem+json` (RFC 9457).

Problem                a status, and a sentence for the client
├── DeadlinePassed     504
├── InputsRejected     413, 415 or 422: single images or vectors of the request cannot be used
├── QueueFull          429, in `rankone.service.inference.inference`
└── LoadConflict       409, in `rankone.service.bundles`

Errors of the rooms below (`rankone.index`, `rankone.model`) have their status in `_STATUS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from rankone.index import (
    IndexConflict,
    IndexFull,
    IndexProblem,
    InvalidFilter,
    MetadataTooLong,
    UnknownIndex,
    UnknownItem,
    UnknownMap,
)
from rankone.model.bundle import BundleError
from rankone.model.engine import EngineError, EngineOutOfMemory
from rankone.model.errors import RankoneError
from rankone.model.evidence import NoEvidence
from rankone.model.preprocessing import ImageTooLarge, UnsupportedImageType

CLIENT_GONE: Final = 499
_MAX_EXPLAINED: Final = 5

_STATUS: Final[Mapping[type[Exception], int]] = {
    UnknownIndex: 404,
    UnknownItem: 404,
    UnknownMap: 404,
    IndexConflict: 409,
    NoEvidence: 409,
    IndexFull: 507,
    MetadataTooLong: 413,
    InvalidFilter: 422,
    IndexProblem: 503,
    BundleError: 503,
    EngineOutOfMemory: 503,
    EngineError: 500,
}


class Problem(Exception):
    """An answer other than success: a status, a sentence for the client and, where single inputs are at fault, which.

    Routes, and the layers from the deadline on, raise it. 499, where the client hung up, is only counted and logged.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[dict[str, Any]] = (),
        *,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors, self.retry_after_s = status, detail, errors, retry_after_s
        self.headers = {**(headers or {}), **({} if retry_after_s is None else {"Retry-After": str(retry_after_s)})}


class DeadlinePassed(Problem):
    """The answer cannot be there in the time that its request allows."""

    def __init__(self, detail: str) -> None:
        super().__init__(504, detail)


class InvalidVector(RankoneError, ValueError):
    """A vector that cannot be an embedding of the bundle being served."""


class InputsRejected(Problem):
    """Some inputs of a request cannot be used; every one is named, by its place. The status is that of the first."""

    def __init__(self, rejections: Mapping[int, RankoneError]) -> None:
        self.rejections = dict(sorted(rejections.items()))
        index, error = next(iter(self.rejections.items()))
        kind = "vector" if isinstance(error, InvalidVector) else "image"
        errors = [{"index": place, "reason": str(reason)} for place, reason in self.rejections.items()]
        status = 413 if isinstance(error, ImageTooLarge) else 415 if isinstance(error, UnsupportedImageType) else 422
        super().__init__(status, f"{kind} {index}: {error}", errors)


@contextmanager
def at_places(places: Sequence[int]) -> Iterator[None]:
    """Within, inputs are numbered among those of their kind; what is raised has their places in the whole request."""
    try:
        yield
    except InputsRejected as rejected:
        raise InputsRejected({places[index]: error for index, error in rejected.rejections.items()}) from None


def problem_response(problem: Problem, path: str) -> Response:
    """The problem as it goes over the wire; under /v1/ also in the member that OpenAI's clients read."""
    if problem.status == CLIENT_GONE:
        return Response(status_code=CLIENT_GONE)
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
    }
    if problem.errors:
        body["errors"] = list(problem.errors)
    if path.startswith("/v1/"):
        body["error"] = {"message": problem.detail, "type": body["title"], "code": problem.status}
    return Response(orjson.dumps(body), problem.status, problem.headers, "application/problem+json")


def install(app: FastAPI) -> None:
    """Makes `app` answer every error of its routes as a problem."""

    @app.exception_handler(Problem)
    async def _problem(request: Request, error: Problem) -> Response:
        return problem_response(error, request.url.path)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(methods_of(app, request.scope["path"]))
        return await _problem(request, Problem(error.status_code, str(error.detail), headers=headers))

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        return await _problem(request, Problem(422, explain(error.errors())))

    @app.exception_handler(ClientDisconnect)
    async def _gone(request: Request, _: ClientDisconnect) -> Response:
        return await _problem(request, Problem(CLIENT_GONE, "the client hung up"))

    async def _known(status: int, request: Request, error: Exception) -> Response:
        return await _problem(request, Problem(status, str(error)))

    for kind, status in _STATUS.items():
        app.add_exception_handler(kind, partial(_known, status))


def methods_of(app: FastAPI, path: str) -> list[str]:
    """The methods of all routes that match the path, HEAD and OPTIONS where GET is; none if there is no route."""
    found = {method for r in iter_route_contexts(app.routes) if r.path_regex.match(path) for method in r.methods or ()}
    return sorted(found | ({"HEAD", "OPTIONS"} if "GET" in found else {"OPTIONS"})) if found else []


def explain(errors: Sequence[Any]) -> str:
    """Pydantic's errors in one line, each field with what is wrong with it."""
    lines = [f"{'.'.join(map(str, error['loc'])) or 'body'}: {error['msg']}" for error in errors[:_MAX_EXPLAINED]]
    return "; ".join([*lines, *([f"and {len(errors) - len(lines)} more"] if len(errors) > len(lines) else [])])
