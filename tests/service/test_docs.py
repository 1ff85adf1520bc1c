"""The page for people: all that it needs is here, and a browser is told to look nowhere else."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import urljoin

import httpx
import pytest

pytestmark = pytest.mark.anyio


class References(HTMLParser):
    """What a browser loads for a page, by the elements that name it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href") and value]


async def test_the_page_and_all_that_it_loads_come_from_the_service(http: httpx.AsyncClient) -> None:
    response = await http.get("/docs")
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "//" not in response.text  # with which every address of another host is written
    references = References(response.text).found
    types = {}
    for reference in [*references, *re.findall(r"url: '(.*)'", response.text)]:
        if not reference.startswith("data:"):
            part = await http.get(urljoin("http://localhost/docs", reference))
            types[reference.rpartition("/")[2]] = (part.status_code, part.headers["content-type"].partition(";")[0])
    assert types == {
        "swagger-ui.css": (200, "text/css"),
        "swagger-ui-bundle.js": (200, "text/javascript"),
        "openapi.json": (200, "application/json"),
    }


async def test_a_browser_is_told_to_load_nothing_from_elsewhere(http: httpx.AsyncClient) -> None:
    policy = (await http.get("/docs")).headers["content-security-policy"]
    sources = {directive.split()[0]: directive.split()[1:] for directive in policy.split(";")}
    assert "default-src" in sources
    assert {source for each in sources.values() for source in each} <= {"'self'", "'unsafe-inline'", "data:"}


@pytest.mark.parametrize(
    "path", ["/redoc", "/docs/oauth2-redirect", "/docs/redoc.standalone.js", "/docs/..%2f__init__.py"]
)
async def test_nothing_else_is_served_with_it(http: httpx.AsyncClient, path: str) -> None:
    response = await http.get(path)
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
