"""Every way to address a route: a trailing slash, HEAD, OPTIONS, and a proxy's prefix; and what proxies tell of clients."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.responses import Response

from rankone.service.addresses import ForwardedMiddleware
from rankone.service.auth.keys import add_key
from rankone.service.runtime import Runtime
from rankone.service.settings import Settings
from tests.services import client_of, multipart, serving

pytestmark = pytest.mark.anyio

READS = ["/healthz", "/readyz", "/info", "/metrics", "/models", "/v1/models", "/indexes", "/indexes/default", "/docs"]


def from_address(app: Any, client: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app, client=(client, 1)), base_url="http://localhost")


async def add(http: httpx.AsyncClient, image: bytes, item_id: str) -> None:
    added = await http.post(
        "/indexes/default/items", files=multipart([image]), data={"items": f'[{{"id": "{item_id}"}}]'}
    )
    assert added.status_code == 201, added.text


async def test_a_trailing_slash_is_the_same_route(http: httpx.AsyncClient, images: list[bytes]) -> None:
    for path in READS:
        assert (await http.get(f"{path}/")).status_code == 200, path
    assert (await http.post("/embed/", files=multipart(images[:1]))).status_code == 200
    assert (await http.put("/indexes/mine/")).status_code == 201
    assert (await http.get("/healthz//")).status_code == 404


async def test_an_encoded_slash_belongs_to_the_id(http: httpx.AsyncClient, images: list[bytes]) -> None:
    for item_id in ("a", "a/b", "a/thumbnail"):
        await add(http, images[0], item_id)
    for path, expected in (
        ("a", "a"),
        ("a/", "a"),
        ("a/b", "a/b"),
        ("a%2Fb/", "a/b"),
        ("a%2Fthumbnail", "a/thumbnail"),
        ("a%2fthumbnail", "a/thumbnail"),
    ):
        assert (await http.get(f"/indexes/default/items/{path}")).json()["id"] == expected, path
    for path in ("a/thumbnail", "a/thumbnail/", "a%2Fthumbnail/thumbnail"):
        assert (await http.get(f"/indexes/default/items/{path}")).headers["content-type"] == "image/jpeg", path
    fields = {"vector": True}
    assert "vector" in (await http.get("/indexes/default/items/a%2Fthumbnail", params=fields)).json()
    assert (await http.get("/indexes/default/items/a/thumbnail", params=fields)).status_code == 422


async def test_the_page_loads_its_parts_with_a_trailing_slash_too(http: httpx.AsyncClient) -> None:
    page = await http.get("/docs/")
    for part in ("docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "openapi.json"):
        assert f"../{part}" in page.text
        assert (await http.get(urljoin("http://localhost/docs/", f"../{part}"))).status_code == 200


async def test_head_is_get_without_the_body(app: FastAPI, http: httpx.AsyncClient, images: list[bytes]) -> None:
    await add(http, images[0], "a")
    item = "/indexes/default/items/a"
    for path in [*READS, "/openapi.json", "/docs/swagger-ui.css", "/indexes/default/items", item, f"{item}/thumbnail"]:
        got, head = await http.get(path), await http.head(path)
        assert (head.status_code, head.content) == (200, b""), path
        assert head.headers["content-type"] == got.headers["content-type"], path
    assert (await http.head("/indexes/default/items/b")).status_code == 404
    assert (await http.head("/embed")).status_code == 405
    counted = (await http.get("/metrics")).text
    assert 'method="HEAD",route="/indexes/{index}/items/{item_id:path}"' in counted


async def test_options_names_the_methods_of_every_route(app: FastAPI, http: httpx.AsyncClient) -> None:
    for route in iter_route_contexts(app.routes):
        response = await http.options(str(route.path).replace("{item_id:path}", "a").replace("{", "").replace("}", ""))
        allowed = set(response.headers["allow"].split(", "))
        assert response.status_code == 204
        assert set(route.methods or ()) <= allowed, route.path
        assert "OPTIONS" in allowed
        assert ("HEAD" in allowed) == ("GET" in allowed)
    assert (await http.options("/indexes/default/items/delete")).headers[
        "allow"
    ] == "DELETE, GET, HEAD, OPTIONS, PATCH, POST"
    refused = await http.delete("/healthz")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert (await http.options("/nothing")).status_code == 404


async def test_a_prefix_is_taken_off_by_the_proxy_or_by_the_service(
    settings: Settings, loaded: Runtime, tmp_path: Path
) -> None:
    add_key(tmp_path / "keys.json", "joe", frozenset({"read"}))
    given = {"root_path": "/one/two", "keys": tmp_path / "keys.json"}
    async with serving(settings.model_copy(update=given), loaded) as app, client_of(app) as http:
        for path in ("/one/two/openapi.json", "/openapi.json", "/one/two/openapi.json/"):
            assert (await http.get(path)).json()["servers"] == [{"url": "/one/two"}]
        for path, status in (
            ("/one/two/healthz", 200),
            ("/one/two", 307),
            ("/one/two/", 200),
            ("/one/twohealthz", 401),
            ("/one/two/info", 401),
        ):
            assert (await http.get(path)).status_code == status, path
        page = await http.get("/one/two/docs")
        assert "docs/swagger-ui.css" in page.text


async def test_a_key_of_another_scope_is_not_let_in_by_a_prefix_or_a_slash(
    settings: Settings, loaded: Runtime, tmp_path: Path
) -> None:
    key, _ = add_key(tmp_path / "keys.json", "writer", frozenset({"read", "write"}))
    given = {"root_path": "/one", "keys": tmp_path / "keys.json"}
    async with serving(settings.model_copy(update=given), loaded) as app, client_of(app) as http:
        for path in ("/models/a/1/load", "/models/a/1/load/", "/one/models/a/1/load", "/one/models/a/1/load/"):
            refused = await http.post(path, headers={"Authorization": f"Bearer {key}"})
            assert (refused.status_code, "scope 'admin'" in refused.json()["detail"]) == (403, True), path


async def test_only_trusted_proxies_are_believed(settings: Settings, loaded: Runtime) -> None:
    proxies = settings.model_copy(update={"trusted_proxies": "10.0.0.0/8, 192.168.0.1"})
    async with serving(proxies, loaded) as app:
        for address, prefix in (
            ("10.1.2.3", "/one"),
            ("192.168.0.1", "/one"),
            ("192.168.0.2", "/"),
            ("127.0.0.1", "/"),
        ):
            async with from_address(app, address) as http:
                document = (await http.get("/openapi.json", headers={"X-Forwarded-Prefix": "/one/"})).json()
                assert document["servers"] == [{"url": prefix}], address
        async with from_address(app, "10.1.2.3") as http:
            for wrong in ("//other.example", "one", "/a b", "/..", '/"'):
                document = (await http.get("/openapi.json", headers={"X-Forwarded-Prefix": wrong})).json()
                assert document["servers"] == [{"url": "/"}], wrong


@pytest.mark.parametrize(
    ("trusted", "expected"),
    [("", ("10.1.2.3", "http")), ("10.0.0.0/8", ("203.0.113.7", "https")), ("*", ("198.51.100.1", "https"))],
)
async def test_the_client_is_who_a_trusted_proxy_says(trusted: str, expected: tuple[str, str]) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["client"][0], scope["scheme"]))
        await Response()(scope, receive, send)

    headers = {"X-Forwarded-For": "198.51.100.1, 203.0.113.7, 10.9.9.9", "X-Forwarded-Proto": "https"}
    async with from_address(ForwardedMiddleware(app, trusted), "10.1.2.3") as http:
        await http.get("/", headers=headers)
    assert seen == [expected]


@pytest.mark.parametrize("wrong", [{"trusted_proxies": "nginx"}, {"root_path": "one"}, {"root_path": "/one/"}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Settings.model_validate(wrong)


async def test_without_keys_the_document_asks_for_none(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    assert document["servers"] == [{"url": "/"}]
    assert "security" not in document


async def test_the_document_asks_for_a_key_where_one_is_needed(
    settings: Settings, loaded: Runtime, tmp_path: Path
) -> None:
    add_key(tmp_path / "keys.json", "joe", frozenset({"read"}))
    async with (
        serving(settings.model_copy(update={"keys": tmp_path / "keys.json"}), loaded) as app,
        client_of(app) as other,
    ):
        document = (await other.get("/openapi.json")).json()
        (scheme,) = document["components"]["securitySchemes"].values()
        assert (scheme["type"], scheme["scheme"], document["security"]) == ("http", "bearer", [{"key": []}])
        for path, operations in document["paths"].items():
            if "get" in operations and "{" not in path:
                needs_key = operations["get"].get("security", document["security"]) != []
                assert ((await other.get(path)).status_code == 401) == needs_key, path
