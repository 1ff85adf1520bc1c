"""Nothing that a request says is ignored: parameters and parts are understood, or named in a 422."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from PIL import Image

from rankone.service.app import create_app
from rankone.service.settings import Settings
from tests.services import fail

pytestmark = pytest.mark.anyio

ROUTES = ("/search", "/indexes/default/search")
DIM = 10_000


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "gray").save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = picture()
PART = ("images", ("image", PICTURE))


def operations(app: FastAPI) -> list[tuple[str, str]]:
    """Every method and path of our own routes, with a name in place of each parameter."""
    found = []
    for context in iter_route_contexts(app.routes):
        route = context.route
        if isinstance(route, APIRoute) and context.path is not None:
            path = context.path.replace("{name}", "x").replace("{version}", "1").replace("{item_id:path}", "x")
            found += [(method, path.replace("{index}", "default")) for method in route.methods or ()]
    return found


OPERATIONS = operations(create_app(Settings(), fail))


async def test_every_route_names_query_parameters_that_it_does_not_know(light_http: httpx.AsyncClient) -> None:
    assert len(OPERATIONS) >= 20
    for method, path in OPERATIONS:
        response = await light_http.request(method, f"{path}?treshold=1")
        assert response.status_code == 422, f"{method} {path}: {response.text}"
        assert method == "HEAD" or "treshold" in response.json()["detail"]


async def test_a_parameter_that_is_sent_twice_is_named(light_http: httpx.AsyncClient) -> None:
    for path in ("/search?k=1&k=2", "/embed?dtype=float32&dtype=float32", "/indexes?a=1&a=2"):
        response = await (light_http.get if path.startswith("/indexes") else light_http.post)(path)
        assert (response.status_code, "sent twice" in response.json()["detail"]) == (422, True)


@pytest.mark.parametrize("route", ["/embed", "/classify", *ROUTES, "/indexes/default/items"])
async def test_parts_of_a_form_are_understood_or_named(light_http: httpx.AsyncClient, route: str) -> None:
    if route == "/classify":
        route = "/embed"  # the tiny bundle has no classifier, and the form is read by the same function
    for name in ("file", "image", "images[]", "files[0]", "Photo"):
        response = await light_http.post(route, files=[(name, ("image", PICTURE))])
        assert (response.status_code, "in parts named 'images'" in response.json()["detail"]) == (422, True), name
        assert repr(name) in response.json()["detail"]
    response = await light_http.post(route, files=[PART, ("treshold", (None, "1"))])
    assert (response.status_code, "not 'treshold'" in response.json()["detail"]) == (422, True)
    response = await light_http.post(route, files=[PART, *[(f"x{n}", (None, "1")) for n in range(20)]])
    assert (response.status_code, "and 15 more" in response.json()["detail"]) == (422, True)


@pytest.fixture
async def tenants(light_http: httpx.AsyncClient) -> httpx.AsyncClient:
    """Six items of two tenants, a and b, near and far from the picture."""
    embedding = np.array((await light_http.post("/embed", files=[PART])).json()["embeddings"][0])
    away = np.random.default_rng(0).normal(size=(6, DIM))
    away -= np.outer(away @ embedding, embedding)
    items = []
    for place, direction in enumerate(away):
        vector = embedding + 0.1 * (place + 1) * direction / np.linalg.norm(direction)
        metadata = {"tenant": "ab"[place % 2]}
        items.append({"id": str(place), "vector": (vector / np.linalg.norm(vector)).tolist(), "metadata": metadata})
    added = await light_http.post("/indexes/default/items", content=orjson.dumps({"items": items}), headers=JSON)
    assert added.status_code == 201, added.text
    return light_http


JSON = {"content-type": "application/json"}
OPTIONS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["0", "1", "2", "3", "4", "5"]),
    ({"k": 2}, ["0", "1"]),
    ({"filter": {"tenant": "b"}}, ["1", "3", "5"]),
    ({"min_score": 0.965}, ["0", "1"]),
    ({"group_by": "tenant"}, ["0", "1"]),
    ({"k": 1, "filter": {"tenant": {"$in": ["b"]}}, "min_score": 0.5, "group_by": "tenant"}, ["1"]),
]


def as_text(options: dict[str, Any]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in options.items()}


@pytest.mark.parametrize("route", ROUTES)
async def test_options_work_in_every_form_of_every_search(tenants: httpx.AsyncClient, route: str) -> None:
    images = {"images": [base64.b64encode(PICTURE).decode()]}
    for options, expected in OPTIONS:
        texts = as_text(options)
        fields = [(name, (None, text)) for name, text in texts.items()]
        answers = {
            "JSON": await tenants.post(route, json={**images, **options}),
            "JSON, query": await tenants.post(route, json=images, params=texts),
            "form": await tenants.post(route, files=[PART, *fields]),
            "form, query": await tenants.post(route, files=[PART], params=texts),
            "raw": await tenants.post(route, content=PICTURE, headers={"content-type": "image/png"}, params=texts),
        }
        for form, response in answers.items():
            assert response.status_code == 200, f"{form}: {response.text}"
            ((*hits,),) = response.json()["results"]
            assert [hit["id"] for hit in hits] == expected, f"{form}: {options}"


@pytest.mark.parametrize("route", ROUTES)
async def test_options_that_make_no_sense_are_refused_in_every_form(tenants: httpx.AsyncClient, route: str) -> None:
    for name, text in (
        ("k", "0"), ("k", "many"), ("k", "5000"), ("min_score", "2"), ("min_score", "nan"), ("filter", "{"),
        ("filter", "[]"), ("filter", '{"$no": 1}'), ("group_by", "a..b"),
    ):  # fmt: skip
        raw = {"content-type": "image/png"}
        for response in (
            await tenants.post(route, files=[PART, (name, (None, text))]),
            await tenants.post(route, files=[PART], params={name: text}),
            await tenants.post(route, content=PICTURE, headers=raw, params={name: text}),
        ):
            assert response.status_code == 422, f"{name}={text}: {response.text}"
    twice = await tenants.post(route, files=[PART, ("k", (None, "1"))], params={"k": "2"})
    assert (twice.status_code, twice.json()["detail"][:37]) == (422, "k: given in the query and in the body")
    doubled = await tenants.post(route, files=[PART, ("k", (None, "1")), ("k", (None, "2"))])
    assert (doubled.status_code, doubled.json()["detail"]) == (422, "parts were sent twice: 'k'; send each once")
    no_text = await tenants.post(route, files=[PART, ("filter", ("a", b"\xff"))])
    assert (no_text.status_code, "not UTF-8" in no_text.json()["detail"]) == (400, True)
