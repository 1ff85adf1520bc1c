"""The page at `/` as the service sends it: its files, their headers, and what they may load."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

from rankone.service.auth.keys import add_key
from rankone.service.routes.pages import ADDRESSES, FILES
from rankone.service.runtime import Runtime
from tests.services import client_of, serving

pytestmark = pytest.mark.anyio

MAX_BYTES = 100_000
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def test_all_of_it_is_under_100_kb_and_names_no_other_host() -> None:
    assert sum(map(len, FILES.values())) < MAX_BYTES
    for name, data in FILES.items():
        assert set(re.findall(r"\w+://[\w.]+", data.decode())) <= {"http://www.w3.org"}, (
            name
        )  # the name of SVG's elements


def test_no_script_and_no_style_is_written_into_the_page() -> None:
    text = FILES["index.html"].decode()
    assert re.findall(r"<style|style=|\son\w+=|javascript:", text) == []
    assert re.findall(r"<script(.*?)>(.*?)</script>", text) == [(' type="module" src="web/main.js"', "")]


async def test_every_file_is_served_with_its_type_and_again_only_if_it_changed(light_http: httpx.AsyncClient) -> None:
    response = await light_http.get("/")
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    named = set(re.findall(r'(?:src|href)="(web/[^"]+)"', response.text))
    for name in sorted(FILES.keys() - {"index.html"}):
        part = await light_http.get(f"/web/{name}")
        assert part.headers["content-type"].partition(";")[0] == TYPES[Path(name).suffix], name
        assert (part.status_code, part.headers["cache-control"]) == (200, "no-cache"), name
        again = await light_http.get(f"/web/{name}", headers={"If-None-Match": part.headers["etag"]})
        assert (again.status_code, again.content) == (304, b""), name
        named |= {f"web/{other}" for other in re.findall(r'from "\./([^"]+)"', part.text)}
    assert {f"/{name}" for name in named} | {"/"} == ADDRESSES


@pytest.mark.parametrize("path", ["/", "/web/main.js", "/web/style.css"])
async def test_a_browser_runs_and_loads_nothing_but_these_files(light_http: httpx.AsyncClient, path: str) -> None:
    headers = (await light_http.get(path)).headers
    policy = {rule.split()[0]: rule.split()[1:] for rule in headers["content-security-policy"].split(";")}
    assert policy["default-src"] == ["'none'"]
    assert {source for sources in policy.values() for source in sources} == {"'none'", "'self'", "blob:"}
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")


@pytest.mark.parametrize("path", ["/web/index.html", "/web/other.js", "/web/..%2fapp.py", "/web/", "/web"])
async def test_nothing_else_is_served_with_it(light_http: httpx.AsyncClient, path: str) -> None:
    response = await light_http.get(path)
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")


async def test_it_is_no_part_of_the_api(light_http: httpx.AsyncClient) -> None:
    paths = (await light_http.get("/openapi.json")).json()["paths"]
    assert [path for path in paths if path == "/" or path.startswith("/web")] == []
    assert (await light_http.get("/?a=1")).status_code == 422


async def test_behind_a_prefix_its_addresses_stay_below_it(light: Runtime, tmp_path: Path) -> None:
    """Without the slash at its end, relative addresses would lead beside the service."""
    add_key(tmp_path / "keys.json", "joe", frozenset({"read"}))
    given = {"root_path": "/one/two", "keys": tmp_path / "keys.json", "data": tmp_path / "index"}
    async with serving(light.settings.model_copy(update=given), light) as app, client_of(app) as http:
        sent = await http.get("/one/two")
        assert urljoin("http://localhost/one/two", sent.headers["location"]) == "http://localhost/one/two/"
        page = await http.get("/one/two/")
        assert (page.status_code, page.content) == (200, FILES["index.html"])
        (script,) = re.findall(r'<script type="module" src="([^"]+)"', page.text)
        assert (await http.get(urljoin("http://localhost/one/two/", script))).status_code == 200
