"""Routes that are gone to directly answer as FastAPI's own do."""

from __future__ import annotations

from typing import Annotated, Literal

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from rankone.service.routes import problems
from rankone.service.routes.direct import DirectRoute
from rankone.service.routes.requests import runtime_of

pytestmark = pytest.mark.anyio


async def times(
    request: Request,
    runtime: Annotated[str, Depends(runtime_of)],
    count: Annotated[int, Query(ge=1)] = 3,
    end: Literal[".", "!"] = ".",
) -> Response:
    return Response(runtime * count + end)


async def answer(
    method: str, url: str, runtime: str | None = "run", route: type[APIRoute] = DirectRoute
) -> httpx.Response:
    app = FastAPI()
    problems.install(app)
    router = APIRouter(route_class=route)
    router.post("/times")(times)
    app.include_router(router)

    async def with_runtime(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"runtime": runtime}}, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(with_runtime), base_url="http://test") as client:
        return await client.request(method, url)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?",
        "?count=2",
        "?count=+2",
        "?count=2.0",
        "?count=2&count=1",
        "?end=!&count=1",
        "?end=%21",
        "?other=1",
        "?COUNT=2",
        "?count=0",
        "?count=",
        "?count=two",
        "?count=2.5",
        "?count",
        "?end=",
        "?end=x",
        "?count=1&count=x",
    ],
)
async def test_a_query_means_what_it_means_to_fastapi(query: str) -> None:
    direct, usual = [await answer("POST", f"/times{query}", route=route) for route in (DirectRoute, APIRoute)]
    assert (direct.status_code, direct.text) == (usual.status_code, usual.text)


@pytest.mark.parametrize("query", ["", "?count=3"])
async def test_what_is_right_does_not_go_the_long_way(query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(APIRoute, "handle", None)
    response = await answer("POST", f"/times{query}")
    assert (response.status_code, response.text) == (200, "runrunrun.")


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
