"""Who may speak to a service without keys: programs and its own pages, but no page of another name or origin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from rankone.service.auth.keys import add_key
from rankone.service.auth.origins import is_loopback, name_of
from rankone.service.runtime import Runtime
from rankone.service.settings import Settings
from tests.services import client_of, exchange, serving

pytestmark = pytest.mark.anyio

APP = "https://app.example.org"
WRITE = ("PUT", "/indexes/new")
SITES = ("cross-site", "same-site")


def settings_of(light: Runtime, tmp_path: Path, **changes: Any) -> Settings:
    return light.settings.model_copy(update={"data": tmp_path / "index", **changes})


@pytest.mark.parametrize(
    ("host", "name", "is_ours"),
    [
        ("localhost", "localhost", True),
        ("LocalHost:8000", "localhost", True),
        ("127.0.0.1:8000", "127.0.0.1", True),
        ("127.9.9.9", "127.9.9.9", True),
        ("[::1]:8000", "::1", True),
        ("evil.example", "evil.example", False),
        ("localhost.evil.example:8000", "localhost.evil.example", False),
        ("evil@localhost", "evil@localhost", False),
        ("localhost/evil", "localhost/evil", False),
        ("192.168.1.2:8000", "192.168.1.2", False),
        ("0.0.0.0", "0.0.0.0", False),
        ("[::2]", "::2", False),
    ],
)
def test_only_names_of_this_machine_are_loopback(host: str, name: str, is_ours: bool) -> None:
    assert (name_of(host), is_loopback(name_of(host))) == (name, is_ours)


@pytest.mark.parametrize(("method", "path"), [("GET", "/info"), ("GET", "/healthz"), ("POST", "/embed"), WRITE])
async def test_without_keys_another_name_gets_nothing(light_http: httpx.AsyncClient, method: str, path: str) -> None:
    """DNS rebinding: to the browser, the page and the service have the same origin."""
    rebound = {"host": "evil.example:8000", "origin": "http://evil.example:8000", "sec-fetch-site": "same-origin"}
    response = await light_http.request(method, path, headers=rebound)
    assert (response.status_code, "RANKONE_ALLOWED_HOSTS" in response.json()["detail"]) == (403, True)
    assert "'evil.example'" in response.json()["detail"]


@pytest.mark.parametrize(
    ("headers", "is_foreign"),
    [
        ({}, False),
        ({"origin": "http://localhost"}, False),
        ({"origin": "http://localhost", "sec-fetch-site": "same-origin"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"origin": "http://evil.example"}, True),
        ({"origin": "http://localhost:3000"}, True),
        ({"origin": "http://localhost.evil.example"}, True),
        ({"origin": "http://127.0.0.1"}, True),
        ({"origin": "null"}, True),
        ({"origin": ""}, True),
        ({"origin": "http://evil.example", "sec-fetch-site": "same-origin"}, True),
        *(({"sec-fetch-site": site}, True) for site in (*SITES, "nonsense", "")),
        *(({"origin": "http://localhost", "sec-fetch-site": site}, True) for site in SITES),
    ],
)
async def test_a_foreign_page_changes_nothing(
    light_http: httpx.AsyncClient, headers: dict[str, str], is_foreign: bool
) -> None:
    response = await light_http.request(*WRITE, headers=headers)
    assert response.status_code == (403 if is_foreign else 201), response.text
    assert ("RANKONE_CORS_ORIGINS" in response.text) == is_foreign
    names = [index["name"] for index in (await light_http.get("/indexes", headers=headers)).json()["indexes"]]
    assert names == (["default"] if is_foreign else ["default", "new"])


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "NONSENSE"])
async def test_every_method_that_is_not_known_to_be_safe_is_refused(light_http: httpx.AsyncClient, method: str) -> None:
    response = await light_http.request(method, "/indexes/x", headers={"origin": "http://evil.example"})
    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("name", ["Host", "Authorization", "Content-Type", "Origin", "X-Request-Timeout"])
async def test_a_header_that_is_sent_twice_is_refused(light: Runtime, tmp_path: Path, name: str) -> None:
    add_key(tmp_path / "keys.json", "joe", frozenset({"read"}))
    header = (name.lower().encode(), b"localhost")
    for keys in (None, tmp_path / "keys.json"):
        async with serving(settings_of(light, tmp_path, keys=keys), light) as app:
            sent = [header] if name == "Host" else [header, header]  # `exchange` sends a Host itself
            assert (await exchange(app, "GET", "/healthz", headers=sent))[0] == [400]


async def test_a_request_without_host_is_refused(light_http: httpx.AsyncClient) -> None:
    response = await light_http.get("/healthz", headers={"host": ""})
    assert (response.status_code, response.json()["detail"]) == (400, "the header Host is missing")


async def test_names_and_origins_can_be_allowed(light: Runtime, tmp_path: Path) -> None:
    named = settings_of(light, tmp_path, allowed_hosts=("Search.Example.org",), cors_origins=(APP,), host="192.168.1.2")
    async with serving(named, light) as app, client_of(app) as http:
        for host in ("search.example.org", "search.example.org:8000", "192.168.1.2:8000", "localhost"):
            assert (await http.get("/healthz", headers={"host": host})).status_code == 200
        assert (await http.get("/healthz", headers={"host": "other.example.org"})).status_code == 403
        page = {"origin": APP, "sec-fetch-site": "cross-site"}
        made = await http.request(*WRITE, headers=page)
        assert (made.status_code, made.headers["access-control-allow-origin"]) == (201, APP)
        assert "x-request-id" in made.headers["access-control-expose-headers"].lower()
        other = await http.request(*WRITE, headers={"origin": "https://other.example.org"})
        assert (other.status_code, "access-control-allow-origin" in other.headers) == (403, False)
        asked = {"access-control-request-method": "DELETE", "access-control-request-headers": "authorization"}
        for origin, status in ((APP, 200), ("https://other.example.org", 400)):
            before = await http.options("/indexes/new", headers={"origin": origin, **asked})
            assert before.status_code == status
            assert before.headers.get("access-control-allow-origin") == (APP if status == 200 else None)
    async with serving(settings_of(light, tmp_path, allowed_hosts=("*",)), light) as app, client_of(app) as http:
        assert (await http.get("/healthz", headers={"host": "any.example.org"})).status_code == 200
        foreign = {"host": "any.example.org", "origin": APP}
        assert (await http.request(*WRITE, headers=foreign)).status_code == 403


async def test_a_key_opens_the_service_under_any_name(light: Runtime, tmp_path: Path) -> None:
    """No page has a key, and programs may send any Origin. Before it sends one, a browser asks; no key is needed for that."""
    secret, _ = add_key(tmp_path / "keys.json", "joe", frozenset({"read", "write"}))
    keyed = settings_of(light, tmp_path, keys=tmp_path / "keys.json", cors_origins=(APP,))
    async with serving(keyed, light) as app, client_of(app) as http:
        foreign = {"host": "search.example.org", "origin": "https://other.example.org", "sec-fetch-site": "cross-site"}
        assert (await http.request(*WRITE, headers=foreign)).status_code == 401
        assert (await http.request(*WRITE, headers={**foreign, "authorization": f"Bearer {secret}"})).status_code == 201
        preflight = {"origin": APP, "access-control-request-method": "POST"}
        assert (await http.options("/embed", headers=preflight)).status_code == 200
        refused = await http.post("/embed", headers={"origin": APP})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, APP)


@pytest.mark.parametrize(
    "origin", ["*", "null", "app.example.org", f"{APP}/", f"{APP}:443", "https://App.example.org", "https://a@b"]
)
def test_an_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    with pytest.raises(ValueError, match="not what browsers send"):
        Settings(cors_origins=(origin,))


def test_names_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKONE_ALLOWED_HOSTS", "a.example.org, b.example.org")
    monkeypatch.setenv("RANKONE_CORS_ORIGINS", f"{APP} http://localhost:3000")
    read = Settings()
    assert read.allowed_hosts == ("a.example.org", "b.example.org")
    assert read.cors_origins == (APP, "http://localhost:3000")
