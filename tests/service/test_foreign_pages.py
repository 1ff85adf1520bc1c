"""What a web page can do to a service on its reader's machine, tried in Chromium: nothing, unless its origin is allowed."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.async_api import Page, Route

from rankone.client import Client
from rankone.model.bundle import Bundle
from rankone.service.auth.keys import add_key
from tests.services import Process

pytestmark = pytest.mark.anyio

HTML = "<!doctype html><title>page</title>"
ATTACK = """
async ([url, png, key]) => {
  const bytes = Uint8Array.from(atob(png), letter => letter.charCodeAt(0));
  const form = () => { const data = new FormData(); data.append('images', new Blob([bytes]), 'a.png');
                       data.append('items', JSON.stringify([{id: 'mine'}])); return data; };
  const headers = key ? {authorization: `Bearer ${key}`} : {};
  const tries = {
    simple: ['/indexes/default/items', {method: 'POST', body: form(), mode: 'no-cors'}],
    form: ['/indexes/default/items', {method: 'POST', body: form(), headers}],
    load: ['/models/tiny/1/load', {method: 'POST', mode: 'no-cors'}],
    text: ['/indexes/default/items/delete', {method: 'POST', body: '{"ids": ["kept"]}', mode: 'no-cors'}],
    create: ['/indexes/new', {method: 'PUT', headers}],
    drop: ['/indexes/other?confirm=other', {method: 'DELETE', headers}],
    item: ['/indexes/default/items/kept', {method: 'DELETE', headers}],
    read: ['/indexes/default/items', {headers}],
  };
  const done = {};
  for (const [name, [path, options]] of Object.entries(tries))
    done[name] = await fetch(url + path, options).then(answer => answer.status, () => 'blocked');
  return done;
}
"""
"""What each kind of request came to: a status, 0 where the page may not see it, or 'blocked'."""


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "gray").save(file, "PNG")
    return file.getvalue()


PNG = png()


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(HTML.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[int]:
    """The port of another server on this machine, which answers with an empty page."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def process(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A service without keys, which knows one page by its origin."""
    origins = "https://known.example"
    process = Process(tiny.path, tmp_path_factory.mktemp("pages"), cors_origins=origins)
    with process.ready() as client:
        client.add([PNG], ["kept"])
        client.create_index("other")
    yield process
    process.close()


def state(url: str, key: str | None = None) -> tuple[list[str], list[str]]:
    """The ids in the index, and the indexes."""
    with Client(url, key=key) as client:
        return sorted(item.id for item in client.items()), sorted(index.name for index in client.indexes())


def metrics(url: str) -> str:
    return httpx.get(f"{url}/metrics").text


async def attack(page: Page, process: Process, key: str | None = None) -> dict[str, int | str]:
    done: dict[str, int | str] = await page.evaluate(ATTACK, [process.url, base64.b64encode(PNG).decode(), key])
    return done


async def serve(page: Page, url: str) -> None:
    """Shows an empty page under an address that no server has to have."""

    async def fulfil(route: Route) -> None:
        await route.fulfill(body=HTML, content_type="text/html")

    await page.route(url, fulfil)
    await page.goto(url)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "evil.example"])
async def test_a_page_of_another_origin_gets_nothing_done(page: Page, process: Process, site: int, host: str) -> None:
    """Of another port of this machine, which browsers call the same site, or of another site."""
    before = state(process.url)
    await page.goto(f"http://{host}:{site}/")
    done = await attack(page, process)
    assert done == {
        "simple": 0, "load": 0, "text": 0,  # sent, and refused by the service: the page cannot see how
        "form": "blocked", "create": "blocked", "drop": "blocked", "item": "blocked", "read": "blocked",
    }  # fmt: skip
    assert state(process.url) == before
    assert 'status="403"' in metrics(process.url), "the simple requests did arrive"


async def test_a_name_that_was_pointed_at_the_service_gets_nothing(page: Page, process: Process) -> None:
    """DNS rebinding: the page's own origin, by its name, is the service. Nothing is blocked by the browser."""
    before = state(process.url)
    name = process.url.replace("127.0.0.1", "evil.example")
    await serve(page, f"{name}/page")
    done = await page.evaluate(ATTACK, [name, base64.b64encode(PNG).decode(), None])
    assert done == dict.fromkeys(done, 403)
    assert state(process.url) == before


async def test_the_service_s_own_page_works(page: Page, process: Process) -> None:
    await page.goto(f"{process.url}/healthz")
    deleted = await page.evaluate(
        "async url => (await fetch(url + '/indexes/default/items/delete', {method: 'POST', body: '{\"ids\": []}', "
        "headers: {'content-type': 'application/json'}})).status",
        process.url,
    )
    assert deleted == 200


async def test_a_page_that_is_allowed_can_do_everything(
    page: Page, tiny: Bundle, site: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("allowed")
    key, _ = add_key(folder / "keys.json", "page", frozenset({"read", "write", "admin"}))
    start = partial(Process, tiny.path, cors_origins=f"http://localhost:{site}")
    keyed: dict[str, Any] = {"keys": folder / "keys.json"}
    for name, settings, secret in (("open", {}, None), ("keyed", keyed, key)):
        process = start(folder / name, **settings)
        try:
            with Client(process.url, key=secret) as client:
                client.wait_until_ready(60)
                client.add([PNG], ["kept"])
                client.create_index("other")
            await page.goto(f"http://localhost:{site}/")
            done = await attack(page, process, secret)
            assert {name: done[name] for name in ("form", "create", "drop", "item", "read")} == {
                "form": 201, "create": 201, "drop": 200, "item": 200, "read": 200,
            }  # fmt: skip
            assert state(process.url, secret) == (["mine"], ["default", "new"])
            await page.goto(f"http://127.0.0.1:{site}/")
            assert (await attack(page, process, secret))["form"] == "blocked"
        finally:
            process.close()
