"""The index over HTTP beyond adding and finding: several indexes, filters, examples, groups, thumbnails."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import threading
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from fastapi import FastAPI
from PIL import Image

from rankone.index import IndexReadOnly
from rankone.index.gallery import Gallery, Vectors
from rankone.index.search import ScoredRow
from rankone.index.search import search as search_rows
from tests.index.oracle import unit
from tests.services import multipart

pytestmark = [pytest.mark.anyio, pytest.mark.backends("local", "postgres")]

URL = "/indexes/default"
DIM = 10_000
NAMES = list("abcdefgh")


@pytest.fixture
async def vectors(http: httpx.AsyncClient) -> np.ndarray:
    """Eight items of two colours, and a size that half of them have."""
    drawn = unit(8, DIM)
    items = [
        {"id": name, "vector": vector.tolist(), "metadata": {"colour": "red" if place % 2 else "blue"}}
        for place, (name, vector) in enumerate(zip(NAMES, drawn, strict=True))
    ]
    for place, item in enumerate(items[:4]):
        item["metadata"]["size"] = {"height": place}
    response = await http.post(f"{URL}/items", content=orjson.dumps({"items": items}), headers=JSON)
    assert response.status_code == 201, response.text
    return drawn


JSON = {"content-type": "application/json"}


async def search(http: httpx.AsyncClient, **body: Any) -> list[list[str]]:
    response = await http.post(f"{URL}/search", json=body)
    assert response.status_code == 200, response.text
    assert response.json()["kind"] == "exact"
    return [[hit["id"] for hit in hits] for hits in response.json()["results"]]


def order(scores: np.ndarray, names: list[str]) -> list[str]:
    return [name for _, name in sorted(zip(-scores, names, strict=True)) if name in names]


async def test_indexes_are_made_described_and_dropped(http: httpx.AsyncClient, place: str) -> None:
    made = {
        "name": "mine",
        "count": 0,
        "dim": DIM,
        "kind": "exact",
        "dtype": "float32",
        "thumbnails": True,
        "backend": "local" if place == "local" else "postgres",
        "device": "cpu" if place == "local" else None,
        "recall": None,
        "detail": None,
    }
    for status in (201, 200):
        response = await http.put("/indexes/mine", json={"dtype": "float32", "thumbnails": True})
        assert (response.status_code, response.json()) == (status, made)
    assert (await http.put("/indexes/mine")).status_code == 409
    assert (await http.put("/indexes/other")).status_code == 201
    assert [index["name"] for index in (await http.get("/indexes")).json()["indexes"]] == ["default", "mine", "other"]
    assert 'rankone_index_items{index="mine"} 0.0' in (await http.get("/metrics")).text
    await http.post("/indexes/mine/items", json={"items": [{"id": "a", "vector": unit(1, DIM)[0].tolist()}]})
    assert (await http.get("/indexes/mine")).json()["count"] == 1
    assert (await http.delete("/indexes/mine?confirm=mine")).json() == {"deleted": 1}
    for response in (
        await http.delete("/indexes/mine?confirm=mine"),
        await http.get("/indexes/mine"),
        await http.get("/indexes/mine/items"),
    ):
        assert (response.status_code, "no index 'mine'" in response.json()["detail"]) == (404, True)
    assert (await http.get("/metrics")).status_code == 200


async def test_the_default_index_cannot_be_dropped(http: httpx.AsyncClient) -> None:
    refused = await http.delete("/indexes/default")
    assert (refused.status_code, "delete its items instead" in refused.json()["detail"]) == (409, True)
    assert (await http.get("/indexes/default")).status_code == 200


@pytest.mark.parametrize("name", ["A", "a.b", "-", "a" * 65, "%00"])
async def test_a_name_that_is_no_file_name_is_refused(http: httpx.AsyncClient, name: str) -> None:
    assert (await http.put(f"/indexes/{name}")).status_code == 422
    assert (await http.put("/indexes/mine", json={"kind": "fast"})).status_code == 422


async def test_a_filter_holds_for_search_listing_and_deletion(http: httpx.AsyncClient, vectors: np.ndarray) -> None:
    red = {"colour": "red", "size.height": {"$exists": False}}
    scores = vectors @ vectors[0]
    (found,) = await search(http, ids=["a"], filter=red)
    assert found == order(scores[[5, 7]], ["f", "h"])
    page = (await http.get(f"{URL}/items", params={"limit": 1, "filter": orjson.dumps(red).decode()})).json()
    assert [item["id"] for item in page["items"]] == ["f"]
    parameters = {"limit": 1, "filter": orjson.dumps(red).decode(), "cursor": page["next_cursor"]}
    page = (await http.get(f"{URL}/items", params=parameters)).json()
    assert ([item["id"] for item in page["items"]], page["next_cursor"]) == (["h"], None)
    assert (await http.post(f"{URL}/items/delete", json={"filter": red})).json() == {"deleted": 2}
    assert await search(http, ids=["b"], filter=red) == [[]]
    assert sorted((await search(http, ids=["b"]))[0]) == list("abcdeg")


async def test_filters_at_fault_are_422(http: httpx.AsyncClient, vectors: np.ndarray) -> None:
    bad = {"colour": {"$near": 1}}
    for response in (
        await http.post(f"{URL}/search", json={"ids": ["a"], "filter": bad}),
        await http.post(f"{URL}/items/delete", json={"filter": bad}),
        await http.get(f"{URL}/items", params={"filter": orjson.dumps(bad).decode()}),
    ):
        assert (response.status_code, "no operator '$near'" in response.json()["detail"]) == (422, True)
    bodies: list[dict[str, object]] = [{"filter": {}}, {}, {"ids": ["a"], "filter": {"a": 1}}]
    for body in bodies:
        assert (await http.post(f"{URL}/items/delete", json=body)).status_code == 422
    assert (await http.get(f"{URL}/items", params={"filter": "{"})).status_code == 422
    assert (await http.get(URL)).json()["count"] == 8


async def test_items_are_not_answered_to_themselves_where_that_is_asked_for(
    http: httpx.AsyncClient, vectors: np.ndarray
) -> None:
    found = await search(http, ids=["a", "b"], k=8)
    assert [hits[0] for hits in found] == ["a", "b"]
    assert await search(http, ids=["a", "b"], k=7, exclude_self=True) == [hits[1:] for hits in found]


async def test_more_like_these_and_less_like_those(http: httpx.AsyncClient, vectors: np.ndarray) -> None:
    direction = 2 * vectors[:2].mean(axis=0) - vectors[2]
    (found,) = await search(http, positive=["a", "b"], negative=["c"])
    assert found == order(vectors[3:] @ direction, NAMES[3:])
    response = await http.post(f"{URL}/search", json={"positive": ["a"], "negative": ["zebra"]})
    assert (response.status_code, response.json()["detail"]) == (404, "there is no item 'zebra'")
    for body in ({"negative": ["a"]}, {"positive": ["a"], "ids": ["b"]}, {"positive": ["a"] * 9}):
        assert (await http.post(f"{URL}/search", json=body)).status_code in (422, 413)


async def test_the_best_of_every_group(http: httpx.AsyncClient, vectors: np.ndarray) -> None:
    scores = vectors @ vectors[4]
    (found,) = await search(http, ids=["e"], group_by="colour")
    assert found == ["e", order(scores[1::2], NAMES[1::2])[0]]
    (found,) = await search(http, ids=["e"], group_by="size.height", filter={"colour": "red"})
    assert found == order(scores[[1, 3]], ["b", "d"])
    (found,) = await search(http, ids=["e"], group_by="size")
    assert found == []
    response = await http.post(f"{URL}/search", json={"ids": ["e"], "group_by": "a..b"})
    assert response.status_code == 422


async def test_an_image_leaves_its_digest_and_a_thumbnail_without_its_metadata(
    http: httpx.AsyncClient, images: list[bytes]
) -> None:
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    buffer = io.BytesIO()
    Image.new("RGB", (900, 300), "red").save(buffer, "JPEG", exif=exif, comment=b"a secret")
    await http.put("/indexes/mine", json={"thumbnails": False})
    for index in ("mine", "default"):
        await http.post(
            f"/indexes/{index}/items", files=multipart([buffer.getvalue()]), data={"items": '[{"id": "a"}]'}
        )
    item = (await http.get("/indexes/default/items/a", params={"thumbnail": True})).json()
    assert item["sha256"] == hashlib.sha256(buffer.getvalue()).hexdigest()
    small = base64.b64decode(item["thumbnail"])
    assert Image.open(io.BytesIO(small)).size == (256, 85)
    assert b"where I live" not in small
    assert b"a secret" not in small
    item = (await http.get("/indexes/mine/items/a", params={"thumbnail": True})).json()
    assert item["thumbnail"] is None


async def test_metadata_that_no_filter_could_find_is_refused(http: httpx.AsyncClient) -> None:
    vector = unit(1, DIM)[0].tolist()
    for metadata, status in (({"a": "x\0"}, 422), ({"\0": 1}, 422), ({"a": "\\u0000"}, 201), ({"a": "\\\0"}, 422)):
        response = await http.post(f"{URL}/items", json={"items": [{"vector": vector, "metadata": metadata}]})
        assert response.status_code == status, metadata


async def test_many_at_once_are_all_stored_and_all_answered(http: httpx.AsyncClient, vectors: np.ndarray) -> None:
    """Adds and searches of sixty clients; each finds its own item right after it was acknowledged."""

    async def one(number: int) -> None:
        vector = unit(1, DIM, seed=1000 + number)[0].tolist()
        added = await http.post(f"{URL}/items", json={"items": [{"id": f"n{number}", "vector": vector}]})
        assert added.status_code == 201
        found = await http.post(f"{URL}/search", json={"vectors": [vector], "k": 1})
        assert found.json()["results"][0][0]["id"] == f"n{number}"

    await asyncio.gather(*(one(number) for number in range(60)))
    assert (await http.get(URL)).json()["count"] == 68


@pytest.mark.backends("local")
async def test_an_index_that_cannot_be_written_says_so_and_answers(
    app: FastAPI, http: httpx.AsyncClient, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise IndexReadOnly("the disk failed (SQLITE_IOERR_FSYNC)")

    monkeypatch.setattr("rankone.index.store.Store.commit", broken)
    for _ in range(2):
        response = await http.post(f"{URL}/items/delete", json={"ids": ["a"]})
        assert (response.status_code, "SQLITE_IOERR_FSYNC" in response.json()["detail"]) == (503, True)
    reason = "the disk failed (SQLITE_IOERR_FSYNC)"
    assert (await http.get("/readyz")).json() == {"status": "ready", "indexes": {"default": reason}}
    assert (await http.get("/info")).json()["index_problems"] == {"default": reason}
    assert (await http.get(URL)).json()["detail"] == reason
    assert (await search(http, ids=["a"], k=1)) == [["a"]]


@pytest.mark.backends("local")
async def test_a_search_that_would_be_late_is_refused_and_never_carried_out(
    http: httpx.AsyncClient, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_begun, goes_on, searched = threading.Event(), threading.Event(), list[int]()

    def held(gallery: Gallery, ids: list[str], queries: Vectors, *rest: Any) -> list[list[ScoredRow]]:
        searched.append(len(queries))
        has_begun.set()
        assert goes_on.wait(60)
        return search_rows(gallery, ids, queries, *rest)

    monkeypatch.setattr("rankone.index.search_thread.search", held)
    first = asyncio.create_task(search(http, vectors=vectors[:1].tolist(), k=1))
    assert await asyncio.to_thread(has_begun.wait, 60)
    body = {"vectors": vectors[:2].tolist()}
    late = await http.post(f"{URL}/search", json=body, headers={"X-Request-Timeout": "0.2"})
    assert late.status_code == 504
    assert late.json()["detail"] == "no answer within the 0.2 s that this request allows"
    goes_on.set()
    assert await first == [["a"]]
    assert await search(http, vectors=vectors[:3].tolist(), k=1) == [["a"], ["b"], ["c"]]
    assert searched == [1, 3]
