"""Ids and index names in paths: what a client could shorten reaches nothing else, and every id is reached."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from rankone.client import AsyncClient, Client, ServiceError
from rankone.index import Index, Item
from rankone.model.bundle import Bundle
from rankone.service.routes.checks import check_id
from tests.services import Process

DIM = 10_000
VECTOR = np.eye(1, DIM, dtype=np.float32)[0]
REACHED = ["a/b.png", "/abs/a.png", "a//b", "...", "..a", "a.", "ü/ö ?#%25&+.png", "a\\b", "delete", "x" * 255, "📷"]
REFUSED = [
    ".", "..", "a/..", "../a", "a/./b", "a/../b", "./a", "a/", "/", "a\nb", "a\rb", "\x00", "\x1b[2J", "\x7f", "\x85",
    "a\u2028b", "a\u2029",
]  # fmt: skip


@pytest.mark.parametrize("item_id", REFUSED)
def test_an_id_that_a_path_cannot_carry_is_refused(item_id: str) -> None:
    with pytest.raises(ValueError, match="an id "):
        check_id(item_id)


@pytest.fixture(scope="module")
def process(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A service in whose index `default` items of an earlier version have ids that are refused now."""
    data = tmp_path_factory.mktemp("ids")
    process = Process(tiny.path, data)
    with process.ready():
        process.end()
    index = Index(data / "default.sqlite")
    index.put([Item(item_id, VECTOR) for item_id in REFUSED])
    index.close()
    process.close()
    process = Process(tiny.path, data)
    process.ready().close()
    yield process
    process.close()


def test_every_client_reaches_every_id(process: Process) -> None:
    with Client(process.url) as client:
        client.create_index("mine")
        client.add_vectors([VECTOR] * len(REACHED), REACHED, index="mine")
        assert [client.item(item_id, "mine").id for item_id in REACHED] == REACHED
        assert {hit.id for hit in client.search_ids(["a/b.png"], "mine", k=50)[0]} == set(REACHED)

        async def read() -> list[str]:
            async with AsyncClient(process.url) as again:
                return [(await again.item(item_id, "mine")).id for item_id in REACHED]

        assert asyncio.run(read()) == REACHED
        for path in ("a/b.png", "a%2Fb.png"):  # as curl sends it, and as a browser's encodeURIComponent does
            assert httpx.get(f"{process.url}/indexes/mine/items/{path}").json()["id"] == "a/b.png"
        assert client.delete(REACHED, "mine") == len(REACHED)
        client.drop_index("mine")
        assert [index.name for index in client.indexes()] == ["default"]


def test_new_ids_are_checked_in_every_form(process: Process) -> None:
    with Client(process.url) as client:
        for item_id in REFUSED:
            with pytest.raises(ServiceError, match="an id ") as refused:
                client.add_vectors([VECTOR], [item_id])
            assert refused.value.status == 422
    form: Any = [("images", ("image", b"x")), ("items", (None, '[{"id": "a/../b"}]'))]
    response = httpx.post(f"{process.url}/indexes/default/items", files=form)
    assert (response.status_code, "clients shorten such paths" in response.json()["detail"]) == (422, True)


def test_ids_of_earlier_versions_are_read_and_deleted(process: Process) -> None:
    with Client(process.url) as client:
        assert {item.id for item in client.items()} == set(REFUSED)
        for item_id in (".", "..", "a/../b", "\x1b[2J"):
            assert client.item(item_id).id == item_id
        assert len(client.search_ids([".."], k=5)[0]) == 5
        assert len(client.more_like(["."], ["a/.."], k=5)) == 5
        assert httpx.request("DELETE", f"{process.url}/indexes/default/items/%2E%2E").json() == {"deleted": 1}
        assert client.delete(REFUSED) == len(REFUSED) - 1
        assert client.count() == 0


@pytest.mark.parametrize(
    "path", ["/indexes/kept/items/..", "/indexes/kept/items/%2e%2e", "/indexes/kept", "/indexes/kept/"]
)
def test_no_path_that_is_shortened_drops_an_index(process: Process, path: str) -> None:
    """`httpx`, as browsers and curl do, sends DELETE /indexes/kept/items/.. as DELETE /indexes/kept/."""
    with Client(process.url) as client:
        client.create_index("kept")
        for query in ("", "?confirm=", "?confirm=other", "?confirm=KEPT"):
            response = httpx.request("DELETE", f"{process.url}{path}{query}", follow_redirects=True)
            assert response.status_code in (404, 405, 422), response.text
            bare = http.client.HTTPConnection("127.0.0.1", process.port)
            bare.request("DELETE", f"{path}{query}")
            assert bare.getresponse().status in (307, 404, 405, 422)
            bare.close()
        assert "kept" in [index.name for index in client.indexes()]
    refused = httpx.delete(f"{process.url}/indexes/kept")
    assert refused.json()["detail"] == (
        "this drops the index 'kept' with all its items: to confirm that, add ?confirm=kept"
    )
