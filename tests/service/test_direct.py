"""Routes that are gone to directly answer as FastAPI's own do."""

from __future__ import annotations

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from starlette.types import Receive, Scope, Send

from service.api import problems
from service.api.direct import DirectRoute

pytestmark = pytest.mark.anyio


async def times(request: Request, runtime: str, count: int = 3) -> Response:  # noqa: ARG001 - a route's
    return Response(runtime * count)


async def answer(method: str, url: str, runtime: str | None = "run") -> httpx.Response:
    app = FastAPI()
    problems.install(app)
    router = APIRouter(route_class=DirectRoute)
    router.post("/times")(times)
    app.include_router(router)

    async def with_runtime(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"runtime": runtime}}, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(with_runtime), base_url="http://test") as client:
        return await client.request(method, url)


async def test_without_a_query_the_defaults_count() -> None:
    response = await answer("POST", "/times")
    assert (response.status_code, response.text) == (200, "runrunrun")


async def test_other_methods_are_refused() -> None:
    response = await answer("GET", "/times")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


async def test_before_something_is_loaded_it_answers_503() -> None:
    response = await answer("POST", "/times", runtime=None)
    assert response.status_code == 503
    assert "still loading" in response.json()["detail"]


async def test_what_else_a_route_needs_is_an_error_when_it_is_made() -> None:
    async def needs_more(request: Request, runtime: str, index: str) -> Response:
        raise AssertionError

    with pytest.raises(TypeError, match="needs_more takes request, runtime, index"):
        APIRouter(route_class=DirectRoute).post("/{index}")(needs_more)
