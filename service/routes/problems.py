"""Errors as `application/problem+json` (RFC 9457): every way in which a request can fail, in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from rankone.index import IndexConflict, IndexFull, IndexProblem, InvalidFilter, UnknownIndex, UnknownItem
from rankone.model.bundle import BundleError
from rankone.model.engine import EngineError, EngineOutOfMemory
from rankone.model.errors import RankoneError
from rankone.model.preprocessing import ImageTooLarge, UnsupportedImageType
from rankone.service.bundles import LoadConflict, UnknownModel
from rankone.service.context import ClientGone
from rankone.service.inference.admission import QueueFull
from rankone.service.inference.job import DeadlinePassed
from rankone.service.rejections import InputsRejected, InvalidVector

MEDIA_TYPE: Final = "application/problem+json"

_MAX_EXPLAINED: Final = 5
_CLIENT_GONE: Final = 499

_STATUS_OF_KIND: Final[Mapping[type[Exception], int]] = {
    UnknownIndex: 404,
    UnknownItem: 404,
    IndexConflict: 409,
    IndexFull: 507,
    UnknownModel: 404,
    LoadConflict: 409,
    BundleError: 503,
    DeadlinePassed: 504,
    EngineOutOfMemory: 503,
    InvalidFilter: 422,
    IndexProblem: 503,
    EngineError: 500,
}


class Problem(Exception):
    """An answer other than success: a status, a sentence for the caller and, where single images are at fault, which."""

    def __init__(
        self, status: int, detail: str, errors: Sequence[dict[str, Any]] = (), retry_after_s: int | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors, self.retry_after_s = status, detail, errors, retry_after_s


def problem_response(problem: Problem, path: str) -> Response:
    """The problem as it goes over the wire; under /v1/ with the member in which OpenAI's clients look for its words."""
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
    headers = {} if problem.retry_after_s is None else {"Retry-After": str(problem.retry_after_s)}
    return Response(orjson.dumps(body), problem.status, headers, MEDIA_TYPE)


def busy(full: QueueFull) -> Problem:
    """There is no room now, and when there may be."""
    return Problem(429, str(full), retry_after_s=full.retry_after_s)


def install(app: FastAPI) -> None:
    """Makes `app` answer every error of its routes as a problem."""

    @app.exception_handler(Problem)
    async def _problem(request: Request, error: Problem) -> Response:
        return problem_response(error, request.url.path)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        response = problem_response(Problem(error.status_code, str(error.detail)), request.url.path)
        response.headers.update(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            response.headers["Allow"] = _allowed(app, request.url.path)
        return response

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        return problem_response(Problem(422, explain(error.errors())), request.url.path)

    @app.exception_handler(InputsRejected)
    async def _inputs(request: Request, error: InputsRejected) -> Response:
        return problem_response(_from_rejections(error), request.url.path)

    @app.exception_handler(QueueFull)
    async def _full(request: Request, error: QueueFull) -> Response:
        return problem_response(busy(error), request.url.path)

    @app.exception_handler(ClientDisconnect)
    @app.exception_handler(ClientGone)
    async def _gone(_: Request, _error: Exception) -> Response:
        return Response(status_code=_CLIENT_GONE)  # nobody reads it; it is counted

    for kind, status in _STATUS_OF_KIND.items():
        _install_kind(app, kind, status)


def explain(errors: Sequence[Any]) -> str:
    """Pydantic's errors in one line, each field with what is wrong with it."""
    lines = [f"{'.'.join(map(str, error['loc'])) or 'body'}: {error['msg']}" for error in errors[:_MAX_EXPLAINED]]
    return "; ".join([*lines, *([f"and {len(errors) - len(lines)} more"] if len(errors) > len(lines) else [])])


def _from_rejections(rejected: InputsRejected) -> Problem:
    """One problem for all inputs at fault; the status is that of the first."""
    errors = [{"index": rejection.index, "reason": str(rejection.error)} for rejection in rejected.rejections]
    first = rejected.rejections[0]
    kind = "vector" if isinstance(first.error, InvalidVector) else "image"
    return Problem(_status(first.error), f"{kind} {first.index}: {first.error}", errors)


def _allowed(app: FastAPI, path: str) -> str:
    """The methods of all routes with the template of the first that matches; the router names those of that one alone."""
    routes = list(iter_route_contexts(app.routes))
    template = next(route.path for route in routes if route.path_regex.match(path))
    return ", ".join(sorted({method for route in routes if route.path == template for method in route.methods or ()}))


def _status(error: RankoneError) -> int:
    if isinstance(error, ImageTooLarge):
        return 413
    return 415 if isinstance(error, UnsupportedImageType) else 422


def _install_kind(app: FastAPI, kind: type[Exception], status: int) -> None:
    async def handle(request: Request, error: Exception) -> Response:
        return problem_response(Problem(status, str(error)), request.url.path)

    app.add_exception_handler(kind, handle)
