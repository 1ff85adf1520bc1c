"""Errors as `application/problem+json` (RFC 9457): every way in which a request can fail, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from model.preprocessing import ImageRejected, ImageTooLarge, UnsupportedImageType
from service.decoding import ImagesRejected, Rejection
from service.index import IndexConflict, IndexFull, UnknownIndex, UnknownItem

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An answer other than success: a status, a sentence for the caller and, where single images are at fault, which."""

    def __init__(self, status: int, detail: str, errors: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors = status, detail, errors


def problem_response(problem: Problem) -> Response:
    """The problem as it goes over the wire."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
    }
    if problem.errors:
        body["errors"] = list(problem.errors)
    return Response(orjson.dumps(body), problem.status, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Makes `app` answer every error of its routes as a problem."""

    @app.exception_handler(Problem)
    async def _problem(_: Request, error: Problem) -> Response:
        return problem_response(error)

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> Response:
        response = problem_response(Problem(error.status_code, str(error.detail)))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        return problem_response(Problem(422, explain(error.errors())))

    @app.exception_handler(ImagesRejected)
    async def _images(_: Request, error: ImagesRejected) -> Response:
        return problem_response(from_rejections(error.rejections))

    for kind, status in {UnknownIndex: 404, UnknownItem: 404, IndexConflict: 409, IndexFull: 507}.items():
        _install_index_problem(app, kind, status)


def from_rejections(rejections: Sequence[Rejection]) -> Problem:
    """One problem for all images at fault; the status is that of the first."""
    errors = [{"index": rejection.index, "reason": str(rejection.error)} for rejection in rejections]
    first = rejections[0]
    return Problem(_status(first.error), f"image {first.index}: {first.error}", errors)


def explain(errors: Sequence[Any]) -> str:
    """Pydantic's errors in one line, each field with what is wrong with it."""
    return "; ".join(f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}" for error in errors)


def _status(error: ImageRejected) -> int:
    if isinstance(error, ImageTooLarge):
        return 413
    return 415 if isinstance(error, UnsupportedImageType) else 422


def _install_index_problem(app: FastAPI, kind: type[Exception], status: int) -> None:
    async def handle(_: Request, error: Exception) -> Response:
        return problem_response(Problem(status, str(error)))

    app.add_exception_handler(kind, handle)
