"""Every way in which a request can be wrong: a 4xx, as a problem, that says what was wrong."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest
from fastapi import FastAPI
from PIL import Image

from rankone.service.errors import Problem
from rankone.service.routes.additions import ItemsIn
from rankone.service.routes.requests import ImagesIn, parse_json
from rankone.service.settings import Settings
from tests.services import multipart

pytestmark = pytest.mark.anyio

IMAGE_ROUTES = ("/embed", "/classify", "/search", "/indexes/default/search", "/indexes/default/items")


def picture(form: str = "PNG", size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "gray").save(buffer, form)
    return buffer.getvalue()


def check(response: httpx.Response, status: int, detail: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert problem["type"]
    assert problem["title"]
    assert detail in problem["detail"]
    return problem


@pytest.mark.parametrize("route", IMAGE_ROUTES)
async def test_images_that_cannot_be_used_are_all_named(http: httpx.AsyncClient, route: str) -> None:
    sent = [picture(), b"hello", picture()[:40], picture()]
    problem = check(await http.post(route, files=multipart(sent)), 415, "image 1: not an image: this is text")
    assert [error["index"] for error in problem["errors"]] == [1, 2]
    assert "cannot be decoded" in problem["errors"][1]["reason"]


@pytest.mark.parametrize("route", IMAGE_ROUTES)
async def test_one_image_at_fault_gives_its_own_status(http: httpx.AsyncClient, route: str) -> None:
    check(await http.post(route, files=multipart([picture()[:40]])), 422, "image 0: cannot be decoded")
    huge = picture(size=(16_385, 1))
    check(await http.post(route, files=multipart([picture(), huge])), 413, "no side may be longer than 16,384")


@pytest.mark.parametrize("route", IMAGE_ROUTES)
async def test_counts_are_limited(http: httpx.AsyncClient, route: str) -> None:
    check(
        await http.post(route, files=multipart([picture()] * 9)),
        413,
        "9 images, vectors or ids in one request; at most 8",
    )
    empty = {"content-type": "multipart/form-data; boundary=x"}
    check(await http.post(route, content=b"--x--\r\n", headers=empty), 400, "holds no images")


@pytest.mark.parametrize("route", IMAGE_ROUTES)
async def test_other_content_types_are_refused(http: httpx.AsyncClient, route: str) -> None:
    for kind in ("text/plain", "video/mp4", "application/x-www-form-urlencoded", ""):
        response = await http.post(route, content=b"hello", headers={"content-type": kind})
        check(response, 415, "is not accepted here; send one of image/jpeg")


@pytest.mark.parametrize("route", IMAGE_ROUTES)
async def test_malformed_bodies_are_refused(http: httpx.AsyncClient, route: str) -> None:
    for body in (b"", b"{", b"\xff\xfe", b"[1, 2"):
        check(await http.post(route, content=body, headers={"content-type": "application/json"}), 400, "is not JSON")
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x"):
        response = await http.post(route, content=b"no form", headers={"content-type": kind})
        assert response.status_code == 400, response.text
        assert response.headers["content-type"] == "application/problem+json"
    response = await http.post(route, files={"images": (None, b"text")})
    check(response, 400, "must be a file")


@pytest.mark.parametrize("route", IMAGE_ROUTES)
@pytest.mark.parametrize(
    "body", ["null", "[]", "3", '"images"', '{"imagez": []}', '{"images": "abc"}', '{"images": [1]}']
)
async def test_json_of_another_shape_is_refused(http: httpx.AsyncClient, route: str, body: str) -> None:
    response = await http.post(route, content=body, headers={"content-type": "application/json"})
    assert check(response, 422, "")["detail"]


async def test_long_lists_of_nonsense_are_refused_shortly(http: httpx.AsyncClient) -> None:
    """Before they are looked at one by one, and without sending them back."""
    for route, body in (
        ("/embed", {"images": [1] * 10_001}),
        ("/indexes/default/items/delete", {"ids": [""] * 10_001}),
    ):
        check(await http.post(route, json=body), 413, "more than 10,000 entries")
    files = multipart([picture()])
    response = await http.post("/indexes/default/items", files=files, data={"items": "[" + "{}," * 10_001 + "{}]"})
    check(response, 413, "more than 10,000 entries")
    problem = check(await http.post("/embed", json={"images": [1] * 10_000}), 422, "and 9995 more")
    assert len(problem["detail"]) < 1000


@pytest.mark.parametrize("entry", [b"[]", b"{}", b"0"])
async def test_json_of_very_many_parts_is_not_parsed(
    app: FastAPI, entry: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b'{"images":[[%b]]}' % b",".join([entry] * 2_100_000)
    monkeypatch.setattr("rankone.service.routes.requests.orjson.loads", lambda data: pytest.fail("it was parsed"))
    with pytest.raises(Problem, match="brackets and commas") as refused:
        await parse_json(body, ImagesIn, app.state.service.runtime)
    assert refused.value.status == 413


@pytest.mark.parametrize("mark", ["[", ","])
async def test_the_largest_request_within_the_settings_is_parsed(app: FastAPI, mark: str) -> None:
    """Metadata of nothing but brackets or commas, beside vectors."""
    runtime = replace(app.state.service.runtime, settings=Settings())
    text = mark * (runtime.settings.max_metadata_bytes - len('{"a":""}'))
    item = {"id": mark * 255, "vector": [0.0] * runtime.bundle.manifest.dim, "metadata": {"a": text}}
    body = orjson.dumps({"items": [item] * runtime.settings.max_images})
    assert len((await parse_json(body, ItemsIn, runtime)).items) == runtime.settings.max_images


@pytest.mark.parametrize("route", [*IMAGE_ROUTES, "/indexes/default/items/delete", "/v1/embeddings"])
async def test_json_that_is_nested_very_deep_is_refused(http: httpx.AsyncClient, route: str) -> None:
    for body in (b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000):
        response = await http.post(route, content=body, headers={"content-type": "application/json"})
        assert response.status_code in (400, 422), response.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/embed"),
        ("POST", "/classify"),
        ("POST", "/search"),
        ("POST", "/v1/embeddings"),
        ("GET", "/indexes"),
        ("PUT", "/indexes/new"),
        ("POST", "/indexes/default/search"),
        ("POST", "/indexes/default/items"),
        ("GET", "/indexes/default/items"),
        ("GET", "/indexes/default/items/x"),
        ("DELETE", "/indexes/default/items/x"),
        ("GET", "/models"),
    ],
)
async def test_a_query_parameter_that_is_not_known_is_named(http: httpx.AsyncClient, method: str, path: str) -> None:
    check(await http.request(method, f"{path}?treshold=1"), 422, "query.treshold: Extra inputs are not permitted")


async def test_odd_charsets_of_a_form_are_no_fault_of_ours(http: httpx.AsyncClient) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="items"\r\n\r\n+2AA-\r\n--x--\r\n'
    for charset in ("undefined", "utf-7", "nonsense"):
        kind = f"multipart/form-data; boundary=x; charset={charset}"
        response = await http.post("/indexes/default/items", content=body, headers={"content-type": kind})
        assert response.status_code == 400, response.text


async def test_what_is_not_base64_is_refused_by_index(http: httpx.AsyncClient) -> None:
    good = base64.b64encode(picture()).decode()
    problem = check(
        await http.post("/embed", json={"images": [good, "no base64!", "data:image/png;base64,%%%"]}),
        422,
        "image 1: not base64",
    )
    assert [error["index"] for error in problem["errors"]] == [1, 2]
    check(await http.post("/embed", json={"images": []}), 400, "holds no images")


async def test_a_body_over_the_limit_is_refused_by_its_header(http: httpx.AsyncClient) -> None:
    response = await http.post("/embed", content=b"\0" * 2_000_001, headers={"content-type": "image/png"})
    check(response, 413, "longer than 2,000,000 bytes")


@pytest.mark.parametrize("kind", ["image/png", "application/json", "multipart/form-data; boundary=x"])
async def test_a_body_over_the_limit_is_refused_as_it_grows(http: httpx.AsyncClient, kind: str) -> None:
    """Chunked, so that no header tells; no more is read than what passes the limit."""
    num_sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal num_sent
        yield b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
        for _ in range(1000):
            num_sent += 1
            yield b"a" * 100_000

    check(await http.post("/embed", content=endless(), headers={"content-type": kind}), 413, "longer than 2,000,000")
    assert num_sent <= 22


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/embed", 405),
        ("POST", "/embed?encoding=hex", 422),
        ("POST", "/embed?dtype=int8", 422),
        ("POST", "/classify?top_k=0", 422),
        ("POST", "/search?k=0", 422),
        ("POST", "/search?k=many", 422),
        ("POST", "/search?index=other", 404),
        ("POST", "/indexes/other/search", 404),
        ("GET", "/indexes/other", 404),
        ("GET", "/indexes/default/items/nobody", 404),
        ("DELETE", "/indexes/default/items/nobody", 404),
        ("GET", "/indexes/default/items?limit=0", 422),
        ("GET", "/indexes/default/items?cursor=%F0%9F%98%80", 422),
        ("GET", "/indexes/default/items?cursor=-1", 422),
        ("GET", "/indexes/default/items?cursor=99999999999999999999", 422),
    ],
)
async def test_wrong_paths_methods_and_parameters(http: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    check(await http.request(method, path, files=multipart([picture()]) if method == "POST" else None), status, "")
