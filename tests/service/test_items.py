"""Items over HTTP one by one: their thumbnails, and changes of their metadata."""

from __future__ import annotations

import base64
import io
import sqlite3
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from rankone.service.runtime import Runtime
from rankone.service.settings import Settings
from tests.index.oracle import unit
from tests.services import client_of, multipart, serving

pytestmark = [pytest.mark.anyio, pytest.mark.backends("local", "postgres")]

ITEMS = "/indexes/default/items"
JSON = {"content-type": "application/json"}


async def add(http: httpx.AsyncClient, image: bytes, item: str = '{"id": "a"}', index: str = "default") -> None:
    added = await http.post(f"/indexes/{index}/items", files=multipart([image]), data={"items": f"[{item}]"})
    assert added.status_code == 201, added.text


async def test_a_thumbnail_is_a_jpeg_that_a_browser_keeps(http: httpx.AsyncClient, images: list[bytes]) -> None:
    await add(http, images[0])
    first = await http.get(f"{ITEMS}/a/thumbnail")
    assert (first.status_code, first.headers["content-type"]) == (200, "image/jpeg")
    picture, original = Image.open(io.BytesIO(first.content)), Image.open(io.BytesIO(images[0]))
    assert picture.format == "JPEG"
    assert max(picture.size) == min(256, max(original.size))
    shrunk = np.asarray(original.convert("RGB").resize(picture.size, Image.Resampling.BICUBIC), float)
    assert np.abs(np.asarray(picture, float) - shrunk).mean() < 8
    as_field = (await http.get(f"{ITEMS}/a", params={"thumbnail": True})).json()["thumbnail"]
    assert base64.b64decode(as_field) == first.content
    assert first.headers["cache-control"].startswith("private, max-age=")
    tag = first.headers["etag"]
    for sent in (tag, f'"other", W/{tag}', "*"):
        again = await http.get(f"{ITEMS}/a/thumbnail", headers={"If-None-Match": sent})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert again.headers["cache-control"] == first.headers["cache-control"]
    await add(http, images[1])
    replaced = await http.get(f"{ITEMS}/a/thumbnail", headers={"If-None-Match": tag})
    assert (replaced.status_code, replaced.headers["etag"] == tag) == (200, False)


async def test_where_there_is_no_thumbnail_the_answer_says_why(http: httpx.AsyncClient, images: list[bytes]) -> None:
    vector = unit(1, 10_000)[0].tolist()
    assert (await http.post(ITEMS, json={"items": [{"id": "v", "vector": vector}]})).status_code == 201
    await http.put("/indexes/bare", json={"thumbnails": False})
    await add(http, images[0], index="bare")
    for path, reason in (
        (f"{ITEMS}/v/thumbnail", "'v' has no thumbnail: it was added as a vector"),
        ("/indexes/bare/items/a/thumbnail", "'a' has no thumbnail: its index keeps none"),
        (f"{ITEMS}/none/thumbnail", "there is no item 'none'"),
        ("/indexes/none/items/a/thumbnail", "there is no index 'none'"),
    ):
        response = await http.get(path)
        assert (response.status_code, reason in response.json()["detail"]) == (404, True), response.text


async def test_a_setting_says_whether_new_indexes_keep_thumbnails(settings: Settings, loaded: Runtime) -> None:
    async with serving(settings.model_copy(update={"thumbnails": False}), loaded) as app, client_of(app) as http:
        assert not (await http.get("/indexes/default")).json()["thumbnails"]
        assert (await http.put("/indexes/mine", json={"thumbnails": True})).json()["thumbnails"]
        kept = await http.put("/indexes/mine")  # what is not said is not changed, and no conflict
        assert (kept.status_code, kept.json()["thumbnails"]) == (200, True)
        assert (await http.put("/indexes/mine", json={"thumbnails": False})).status_code == 409
        assert not (await http.put("/indexes/other")).json()["thumbnails"]


async def test_metadata_is_changed_without_the_image(http: httpx.AsyncClient, images: list[bytes]) -> None:
    await add(http, images[0], '{"id": "a/b", "metadata": {"year": 1969, "place": {"name": "moon", "far": true}}}')
    before = (await http.get(f"{ITEMS}/a/b", params={"vector": True, "thumbnail": True})).json()
    patch = {"metadata": {"year": None, "tags": ["x", None], "place": {"far": None, "km": 384_400}}}
    for path in (f"{ITEMS}/a/b", f"{ITEMS}/a%2Fb"):
        changed = await http.patch(path, json=patch)
        assert (changed.status_code, changed.json()["id"]) == (200, "a/b")
        assert changed.json()["metadata"] == {"place": {"name": "moon", "km": 384_400}, "tags": ["x", None]}
    assert changed.json()["sequence"] == 3
    after = (await http.get(f"{ITEMS}/a/b", params={"vector": True, "thumbnail": True})).json()
    assert after == before | {"metadata": changed.json()["metadata"]}
    found = await http.post("/indexes/default/search", json={"ids": ["a/b"], "filter": {"place.km": {"$gt": 1}}})
    assert found.json()["results"][0][0]["metadata"] == after["metadata"]


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({}, 422, "metadata"),
        ({"metadata": None}, 422, "metadata"),
        ({"metadata": [1]}, 422, "metadata"),
        ({"metadata": {}, "image": "x"}, 422, "image"),
        ({"metadata": {"a": "x\0"}}, 422, "U+0000"),
        ({"metadata": {"a": 2**63}}, 422, "the integer 9223372036854775808 is beyond 64 bits"),
        ({"metadata": {"a": "x" * 17_000}}, 413, "at most 16,384"),
        ({"metadata": {"b": "x" * 16_000}}, 413, "would have"),
    ],
)
async def test_patches_at_fault_change_nothing(http: httpx.AsyncClient, body: Any, status: int, reason: str) -> None:
    vector, metadata = unit(1, 10_000)[0].tolist(), {"a": "y" * 1000}
    await http.post(ITEMS, json={"items": [{"id": "a", "vector": vector, "metadata": metadata}]})
    response = await http.patch(f"{ITEMS}/a", json=body)
    assert (response.status_code, reason in response.json()["detail"]) == (status, True), response.text
    assert (await http.get(f"{ITEMS}/a")).json()["metadata"] == metadata
    assert (await http.patch(f"{ITEMS}/b", json={"metadata": {}})).status_code == 404
    assert (await http.patch(f"{ITEMS}/a", content=b"{}")).status_code == 415


@pytest.mark.backends("local")
async def test_a_damaged_item_is_not_patched_whole_again(http: httpx.AsyncClient, settings: Settings) -> None:
    vector = unit(1, 10_000)[0].tolist()
    await http.post(ITEMS, json={"items": [{"id": "a", "vector": vector}]})
    connection = sqlite3.connect(settings.data / "default.sqlite")
    connection.execute("UPDATE vectors SET vector = zeroblob(length(vector))")
    connection.commit()
    connection.close()
    response = await http.patch(f"{ITEMS}/a", json={"metadata": {"n": 1}})
    assert (response.status_code, "is damaged on disk" in response.json()["detail"]) == (503, True)


@pytest.mark.parametrize("integer", ["9223372036854775808", "-9223372036854775809", "1" + "0" * 300])
async def test_integers_beyond_64_bits_are_refused_wherever_they_stand(http: httpx.AsyncClient, integer: str) -> None:
    vector = unit(1, 10_000)[0].tolist()
    for path, text in (
        (ITEMS, f'{{"items": [{{"id": "a", "metadata": {{"n": [{integer}]}}, "vector": {vector}}}]}}'),
        (f"{ITEMS}/delete", f'{{"filter": {{"n": {integer}}}}}'),
        ("/indexes/default/search", f'{{"ids": ["a"], "filter": {{"n": {{"$gt": {integer}}}}}}}'),
    ):
        response = await http.post(path, content=text, headers=JSON)
        assert (response.status_code, "beyond 64 bits" in response.json()["detail"]) == (422, True), response.text[:200]
    response = await http.get(ITEMS, params={"filter": f'{{"n": {integer}}}'})
    assert (response.status_code, "beyond 64 bits" in response.json()["detail"]) == (422, True)


@pytest.mark.parametrize(
    "value",
    [
        "9223372036854775807",
        "-9223372036854775808",
        '"92233720368547758080"',
        '"a \\" 92233720368547758080"',
        "0.12345678901234567890123",
        "12345678901234567890123.5",
        "1e00000000000000000000001",
        "12345678901234567890123e-5",
    ],
)
async def test_other_long_numbers_and_texts_are_kept(http: httpx.AsyncClient, value: str) -> None:
    vector = unit(1, 10_000)[0].tolist()
    text = f'{{"items": [{{"id": "a", "metadata": {{"n": {value}}}, "vector": {vector}}}]}}'
    assert (await http.post(ITEMS, content=text, headers=JSON)).status_code == 201
