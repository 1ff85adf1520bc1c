from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Sequence
from typing import Any

import anyio
import anyio.to_thread
import httpx
import numpy as np
import orjson
import pytest
from fastapi import FastAPI

from rankone.index import Index, Indexes
from rankone.service.errors import Problem
from rankone.service.routes.checks import check_metadata
from rankone.service.runtime import Runtime
from rankone.service.settings import Settings
from tests.services import client_of, multipart, serving

pytestmark = [pytest.mark.anyio, pytest.mark.backends("local", "postgres")]

ITEMS = "/indexes/default/items"
EMPTY = {
    "name": "default",
    "count": 0,
    "dim": 10_000,
    "kind": "exact",
    "dtype": "float16",
    "thumbnails": True,
    "recall": None,
    "detail": None,
}


def form(entries: list[dict[str, Any]]) -> dict[str, str]:
    return {"items": orjson.dumps(entries).decode()}


async def add(http: httpx.AsyncClient, images: list[bytes], ids: list[str]) -> dict[str, Any]:
    entries = [{"id": item_id, "metadata": {"place": place}} for place, item_id in enumerate(ids)]
    response = await http.post(ITEMS, files=multipart(images), data=form(entries))
    assert response.status_code == 201, response.text
    body: dict[str, Any] = response.json()
    return body


async def test_what_was_added_is_found_first_with_its_metadata(http: httpx.AsyncClient, images: list[bytes]) -> None:
    assert await add(http, images[:4], list("abcd")) == {"ids": ["a", "b", "c", "d"], "sequence": 4}
    response = await http.post("/search?k=2", files=multipart(images[1:3]))
    first, second = response.json()["results"]
    assert (first[0]["id"], first[0]["metadata"], len(first)) == ("b", {"place": 1}, 2)
    assert second[0]["id"] == "c"
    assert first[0]["score"] == pytest.approx(1, abs=1e-3)
    assert first[0]["score"] >= first[1]["score"]


async def test_scores_are_cosines_with_the_embeddings(http: httpx.AsyncClient, images: list[bytes]) -> None:
    await add(http, images[:4], list("abcd"))
    embeddings = np.array((await http.post("/embed", files=multipart(images[:5]))).json()["embeddings"])
    found = (await http.post("/search?k=10", files=multipart(images[4:5]))).json()["results"][0]
    expected = dict(zip("abcd", embeddings[:4] @ embeddings[4], strict=True))
    assert [hit["id"] for hit in found] == sorted("abcd", key=lambda item_id: -expected[item_id])
    assert {hit["id"]: hit["score"] for hit in found} == pytest.approx(expected, abs=1e-3)


async def test_every_way_of_asking_agrees(http: httpx.AsyncClient, images: list[bytes]) -> None:
    await add(http, images[:4], list("abcd"))
    vectors = (await http.post("/embed", files=multipart(images[:2]))).json()["embeddings"]
    coded = [base64.b64encode(image).decode() for image in images[:2]]
    url = "/indexes/default/search"
    answers = [
        await http.post("/search?k=3", files=multipart(images[:2])),
        await http.post("/search?k=3&index=default", json={"images": coded}),
        await http.post(f"{url}?k=3", files=multipart(images[:2])),
        await http.post(url, json={"images": coded, "k": 3}),
        await http.post(url, json={"vectors": vectors, "k": 3}),
        await http.post(url, json={"ids": ["a", "b"], "k": 3}),
    ]
    hits = [[[(hit["id"], round(hit["score"], 2)) for hit in row] for row in a.json()["results"]] for a in answers]
    assert all(found == hits[0] for found in hits)
    raw = await http.post(f"{url}?k=1", content=images[0], headers={"content-type": "image/png"})
    assert raw.json()["results"][0][0]["id"] == "a"


async def test_items_by_json_images_and_vectors_mixed(http: httpx.AsyncClient, images: list[bytes]) -> None:
    vector = (await http.post("/embed", files=multipart(images[2:3]))).json()["embeddings"][0]
    items = [
        {"id": "image", "image": base64.b64encode(images[0]).decode()},
        {"id": "vector", "vector": vector, "metadata": {"deep": {"list": [1, None, "é"]}}},
        {"image": base64.b64encode(images[1]).decode()},
    ]
    response = await http.post(ITEMS, json={"items": items})
    assert response.status_code == 201
    made_up = response.json()["ids"][2]
    found = (await http.post("/search?k=1", files=multipart(images[:3]))).json()["results"]
    assert [hits[0]["id"] for hits in found] == ["image", made_up, "vector"]
    assert found[2][0]["metadata"] == {"deep": {"list": [1, None, "é"]}}


async def test_ids_are_made_up_and_metadata_is_empty_where_nothing_is_said(
    http: httpx.AsyncClient, images: list[bytes]
) -> None:
    ids = (await http.post(ITEMS, files=multipart(images[:2]))).json()["ids"]
    assert len(set(ids)) == 2
    sha256 = hashlib.sha256(images[0]).hexdigest()
    assert (await http.get(f"{ITEMS}/{ids[0]}")).json() == {"id": ids[0], "metadata": {}, "sha256": sha256}


async def test_the_same_id_replaces(http: httpx.AsyncClient, images: list[bytes]) -> None:
    await add(http, images[:2], ["a", "b"])
    await add(http, images[2:3], ["a"])
    assert (await http.get("/indexes/default")).json()["count"] == 2
    assert (await http.post("/search?k=1", files=multipart(images[2:3]))).json()["results"][0][0]["id"] == "a"


async def test_an_item_with_its_vector(http: httpx.AsyncClient, images: list[bytes]) -> None:
    await add(http, images[:1], ["folder/with spaces/ä.png"])
    embedding = (await http.post("/embed", files=multipart(images[:1]))).json()["embeddings"][0]
    item = (await http.get(f"{ITEMS}/folder/with spaces/ä.png?vector=true")).json()
    assert item["id"] == "folder/with spaces/ä.png"
    assert np.abs(np.array(item["vector"]) - embedding).max() < 1e-3


async def test_what_was_deleted_is_gone(http: httpx.AsyncClient, images: list[bytes]) -> None:
    await add(http, images[:4], list("abcd"))
    assert (await http.delete(f"{ITEMS}/b")).json() == {"deleted": 1}
    assert (await http.post(f"{ITEMS}/delete", json={"ids": ["c", "c", "nobody"]})).json() == {"deleted": 1}
    found = (await http.post("/search", files=multipart(images[1:2]))).json()["results"][0]
    assert {hit["id"] for hit in found} == {"a", "d"}
    assert (await http.get(f"{ITEMS}/b")).status_code == 404
    assert (await http.post("/indexes/default/search", json={"ids": ["b"]})).status_code == 404


async def test_pages_are_stable_and_complete(http: httpx.AsyncClient, images: list[bytes]) -> None:
    await add(http, images[:5], list("edcba"))
    seen: list[str] = []
    cursor: str | None = "0"
    while cursor is not None:
        page = (await http.get(ITEMS, params={"limit": 2, "cursor": cursor})).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if len(seen) == 2:
            await http.delete(f"{ITEMS}/e")
    assert seen == list("edcba")


async def test_an_empty_index_answers_nothing(http: httpx.AsyncClient, images: list[bytes], place: str) -> None:
    where = {"backend": "local", "device": "cpu"} if place == "local" else {"backend": "postgres", "device": None}
    answer: Any = {"results": [[], []], "kind": "exact", "backend": where["backend"], "recall": None}
    assert (await http.post("/search", files=multipart(images[:2]))).json() == answer
    assert (await http.get(ITEMS)).json() == {"items": [], "next_cursor": None}
    assert (await http.get("/indexes")).json() == {"indexes": [EMPTY | where]}


async def test_min_score_leaves_the_rest_out(http: httpx.AsyncClient, images: list[bytes]) -> None:
    await add(http, images[:4], list("abcd"))
    response = await http.post("/indexes/default/search", json={"ids": ["a"], "min_score": 0.999})
    assert [hit["id"] for hit in response.json()["results"][0]] == ["a"]


async def test_a_request_at_fault_stores_nothing(http: httpx.AsyncClient, images: list[bytes]) -> None:
    vector = [0.6, 0.8] + [0.0] * 9_998
    image = base64.b64encode(images[0]).decode()
    for items, status, detail in (
        ([{"id": "x", "image": image}, {"id": "x", "image": image}], 409, "the id 'x' stands 2 times"),
        ([{"id": "x", "image": image}, {"id": "y", "image": "AAAA"}], 415, "image 1: not an image"),
        (
            [{"id": "x", "vector": vector}, {"vector": vector[:-1]}],
            422,
            "vector 1: 9999 numbers; the vectors of this index",
        ),
        ([{"id": "x", "vector": vector}, {"vector": [2.0, *vector[1:]]}], 422, "vector 1: has length 2.154"),
        ([{"id": "x", "vector": vector}, {"vector": [1e308] * 10_000}], 422, "vector 1: holds NaN, infinity"),
        ([{"id": "x", "image": image, "vector": vector}], 422, "either an image or a vector"),
        ([{"id": "x"}], 422, "either an image or a vector"),
        ([{"id": "", "image": image}], 422, "items.0.id"),
        ([{"id": "x" * 256, "image": image}], 422, "items.0.id"),
        ([{"id": "x", "image": image, "metadata": {"a": "b" * 17_000}}], 413, "item 0: metadata of 17,008 bytes"),
        ([{"id": "x", "image": image, "metadata": [1]}], 422, "items.0.metadata"),
        ([{"id": "x", "vector": vector, "metadata": nested(33)}], 422, "item 0: metadata is nested more than 32"),
        ([{"id": "x", "vector": vector, "metadata": nested(250)}], 422, "item 0: metadata is nested more than 32"),
        ([{"id": "x", "vector": vector}] * 9, 413, "9 images, vectors or ids in one request"),
    ):
        response = await http.post(ITEMS, json={"items": items})
        assert response.status_code == status, response.text
        assert detail in response.json()["detail"]
    assert (await http.get("/indexes/default")).json()["count"] == 0


async def test_the_event_loop_answers_while_metadata_is_looked_through(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hangs until another request has been answered."""
    working, go_on = threading.Event(), threading.Event()

    def hang(metadata: Sequence[dict[str, Any]], max_bytes: int) -> None:
        working.set()
        assert go_on.wait(30)
        check_metadata(metadata, max_bytes)

    monkeypatch.setattr("rankone.service.routes.additions.check_metadata", hang)
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: http.post(ITEMS, json={"items": [{"vector": [1.0] + [0.0] * 9_999}]}))
        assert await anyio.to_thread.run_sync(working.wait, 30)
        assert (await http.get("/healthz")).status_code == 200
        go_on.set()
    assert (await http.get("/indexes/default")).json()["count"] == 1


@pytest.mark.backends("local")
@pytest.mark.parametrize("path", ["", "/items", "/items/a"])
async def test_the_event_loop_answers_while_an_index_is_read_from_disk(
    http: httpx.AsyncClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which takes minutes if there was no room for a large one when its model was loaded."""
    reading, go_on, opened = threading.Event(), threading.Event(), Indexes.open

    def hang(self: Indexes, name: str, fingerprint: str) -> Index:
        reading.set()
        assert go_on.wait(5)
        return opened(self, name, fingerprint)

    monkeypatch.setattr(Indexes, "open", hang)
    async with anyio.create_task_group() as group:
        group.start_soon(http.get, f"/indexes/default{path}")
        assert await anyio.to_thread.run_sync(reading.wait, 30)
        assert (await http.get("/healthz")).status_code == 200
        go_on.set()


async def test_the_characters_of_metadata_that_is_too_long_are_not_looked_at() -> None:
    with pytest.raises(Problem, match="item 1: metadata of 108 bytes; at most 100 are accepted") as raised:
        check_metadata([{"a": "\0"}, {"a": "b" * 100}, {"a": "\0" * 100}], 100)
    assert (raised.value.status, [error["index"] for error in raised.value.errors]) == (413, [1, 2])


def nested(depth: int) -> dict[str, Any]:
    inner: Any = 0
    for level in range(depth - 1):
        inner = [inner] if level % 2 else {"in": inner}
    return {"out": inner}


async def test_metadata_as_deep_as_is_accepted_comes_back(http: httpx.AsyncClient, images: list[bytes]) -> None:
    response = await http.post(ITEMS, files=multipart(images[:1]), data=form([{"id": "a", "metadata": nested(32)}]))
    assert response.status_code == 201
    assert (await http.get(ITEMS)).json()["items"][0]["metadata"] == nested(32)
    assert (await http.post("/search", files=multipart(images[:1]))).json()["results"][0][0]["metadata"] == nested(32)


async def test_the_position_of_a_bad_image_is_its_items(http: httpx.AsyncClient, images: list[bytes]) -> None:
    """Among vectors, the second image is item 2."""
    vector = [1.0] + [0.0] * 9_999
    items = [{"image": base64.b64encode(images[0]).decode()}, {"vector": vector}, {"image": "AAAA"}, {"vector": [1.0]}]
    response = await http.post(ITEMS, json={"items": items[:3]})
    [error] = response.json()["errors"]
    assert error["index"] == 2
    assert error["reason"].startswith("not an image: the file holds nothing but zeros")
    response = await http.post(ITEMS, json={"items": [items[0], items[3]]})
    assert response.json()["errors"][0]["index"] == 1


async def test_a_form_whose_parts_do_not_match_is_refused(http: httpx.AsyncClient, images: list[bytes]) -> None:
    for items, status in (('[{"id": "a"}]', 422), ("[", 400), ('[{"idd": 1}, {}]', 422), ('{"id": 1}', 422)):
        response = await http.post(ITEMS, files=multipart(images[:2]), data={"items": items})
        assert response.status_code == status, response.text
    as_file = [*multipart(images[:1]), ("items", ("items.json", b'[{"id": "z"}]'))]
    assert (await http.post(ITEMS, files=as_file)).json()["ids"] == ["z"]


async def test_searches_are_limited(http: httpx.AsyncClient) -> None:
    url = "/indexes/default/search"
    for body, status, detail in (
        ({"ids": ["a"], "k": 1001}, 422, "at most 1000 neighbours"),
        ({"ids": ["a"], "k": 0}, 422, "k"),
        ({"ids": ["a"], "vectors": []}, 422, "exactly one of images, vectors, ids and positive"),
        ({}, 422, "exactly one"),
        ({"ids": []}, 400, "holds no images"),
        ({"ids": ["a"], "filter": {}}, 422, "filter"),
        ({"vectors": [[1.0]]}, 422, "vector 0: 1 numbers"),
        ({"ids": ["a"], "min_score": 2}, 422, "min_score"),
    ):
        response = await http.post(url, json=body)
        assert (response.status_code, detail in response.json()["detail"]) == (status, True), response.text


async def test_an_item_is_not_taken_for_one_whose_id_is_a_line_break_longer(
    http: httpx.AsyncClient, images: list[bytes]
) -> None:
    await add(http, images[:1], ["a"])
    assert (await http.put("/indexes/mine%0A")).status_code == 404
    assert (await http.delete(f"{ITEMS}/a%0A")).status_code == 404
    assert (await http.get(f"{ITEMS}/a")).status_code == 200


async def test_a_restart_finds_everything(
    settings: Settings, loaded: Runtime, images: list[bytes], anyio_backend: str
) -> None:
    found = []
    for turn in range(2):
        async with serving(settings, loaded) as app, client_of(app) as http:
            if turn == 0:
                await add(http, images[:5], list("abcde"))
                await http.delete(f"{ITEMS}/c")
            found.append((await http.post("/search", files=multipart(images[:3]))).json())
    assert found[0] == found[1]
    assert len(found[1]["results"][0]) == 4


async def test_an_index_of_another_bundle_is_refused_and_left_alone(
    app: FastAPI, http: httpx.AsyncClient, images: list[bytes]
) -> None:
    await add(http, images[:1], ["a"])
    runtime = app.state.service.runtime
    ours = runtime.bundle
    object.__setattr__(runtime, "bundle", ours.model_copy(update={"fingerprint": "f" * 64}))
    for response in (
        await http.post("/search", files=multipart(images[:1])),
        await http.post(ITEMS, files=multipart(images[:1])),
        await http.get("/indexes/default"),
    ):
        assert response.status_code == 409
        assert "was made with the bundle" in response.json()["detail"]
        assert f"{'f' * 16} is being served" in response.json()["detail"]
    assert (await http.get("/indexes")).json()["indexes"][0]["count"] is None
    assert (await http.post("/embed", files=multipart(images[:1]))).status_code == 200
    object.__setattr__(runtime, "bundle", ours)
    assert (await http.get("/indexes/default")).json()["count"] == 1
