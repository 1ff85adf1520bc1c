"""Short embeddings over HTTP: embedded, indexed and searched at the length that is asked for."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from fastapi import FastAPI

from rankone.__main__ import run
from rankone.model.bundle import Bundle
from rankone.model.reduction import shorten
from rankone.training.data import DataSet
from tests.services import Process, Start, multipart

pytestmark = pytest.mark.anyio

Rows = npt.NDArray[np.float32]


def longest(bundle: Bundle) -> int:
    assert bundle.manifest.reduction is not None
    return bundle.manifest.reduction.dim


async def embedded(http: httpx.AsyncClient, images: list[bytes], dim: int | None) -> Rows:
    answer = await http.post("/embed", files=multipart(images), params={} if dim is None else {"dim": dim})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["dim"] == (dim or 10_000)
    return np.array(body["embeddings"], np.float32)


async def test_a_shorter_embedding_is_the_beginning_of_a_longer_one(
    http: httpx.AsyncClient, images: list[bytes], bundle: Bundle
) -> None:
    long, short = [await embedded(http, images[:3], dim) for dim in (longest(bundle), 16)]
    assert np.allclose(np.linalg.norm(short, axis=1), 1, atol=1e-6)
    assert np.allclose(short, shorten(long, 16), atol=1e-5)
    full, asked = [await embedded(http, images[:3], dim) for dim in (None, 10_000)]
    assert np.array_equal(full, asked)


async def test_every_form_of_answer_is_as_short(http: httpx.AsyncClient, images: list[bytes]) -> None:
    expected = await embedded(http, images[:1], 32)
    npy = await http.post("/embed?dim=32", files=multipart(images[:1]), headers={"accept": "application/x-npy"})
    assert len(npy.content) == 128 + 32 * 4
    asked = {"model": "few-cbp-run", "input": base64.b64encode(images[0]).decode(), "dimensions": 32}
    answer = (await http.post("/v1/embeddings", json=asked)).json()
    assert np.allclose(answer["data"][0]["embedding"], expected[0], atol=1e-6)


async def test_an_index_of_short_vectors_takes_images_and_vectors_and_says_its_length(
    http: httpx.AsyncClient, images: list[bytes]
) -> None:
    made = await http.put("/indexes/short", json={"dim": 32})
    assert (made.status_code, made.json()["dim"]) == (201, 32)
    vectors = await embedded(http, images[:2], 32)
    items = [
        {"id": "vector", "vector": vectors[0].tolist()},
        {"id": "image", "image": base64.b64encode(images[1]).decode()},
    ]
    assert (await http.post("/indexes/short/items", json={"items": items})).status_code == 201
    kept = (await http.get("/indexes/short/items/image", params={"vector": True})).json()["vector"]
    assert np.allclose(kept, vectors[1], atol=1e-3)
    for request in (
        {"files": multipart(images[:2])},
        {"json": {"images": [base64.b64encode(image).decode() for image in images[:2]]}},
        {"json": {"vectors": vectors.tolist()}},
        {"json": {"ids": ["vector", "image"]}},
    ):
        answer = await http.post("/indexes/short/search", **request)
        assert [hits[0]["id"] for hits in answer.json()["results"]] == ["vector", "image"], answer.text
        assert all(hits[0]["score"] > 0.999 for hits in answer.json()["results"])
    by_image = await http.post("/search", files=multipart(images[:1]), params={"index": "short"})
    assert by_image.json()["results"][0][0]["id"] == "vector"
    described = (await http.get("/indexes")).json()["indexes"]
    assert {one["name"]: one["dim"] for one in described} == {"default": 10_000, "short": 32}


async def test_vectors_of_another_length_than_the_index_are_refused(http: httpx.AsyncClient) -> None:
    await http.put("/indexes/short", json={"dim": 32})
    for name, dim in (("short", 10_000), ("default", 32)):
        vector = [1.0] + [0.0] * (dim - 1)
        added = await http.post(f"/indexes/{name}/items", json={"items": [{"vector": vector}]})
        searched = await http.post(f"/indexes/{name}/search", json={"vectors": [vector]})
        assert (added.status_code, searched.status_code) == (422, 422)
        assert "the vectors of this index have" in added.json()["detail"]


async def test_an_index_of_another_length_is_another_index(http: httpx.AsyncClient) -> None:
    assert (await http.put("/indexes/short", json={"dim": 32})).status_code == 201
    assert (await http.put("/indexes/short", json={"dim": 32})).status_code == 200
    for options in ({"dim": 16}, {}):
        refused = await http.put("/indexes/short", json=options)
        assert refused.status_code == 409
        assert "of 32 numbers" in refused.json()["detail"]


def asking_for(dim: Any) -> list[dict[str, Any]]:
    """Every request in which a length is asked for."""
    return [
        {"method": "POST", "url": f"/embed?dim={dim}", "json": {"images": [""]}},
        {"method": "PUT", "url": "/indexes/short", "json": {"dim": dim}},
        {"method": "POST", "url": "/v1/embeddings", "json": {"model": "few-cbp-run", "input": "", "dimensions": dim}},
    ]


@pytest.mark.parametrize("dim", [0, -1, 96, 9_999, 10_001, 10**30])
async def test_lengths_that_there_are_not_are_refused(http: httpx.AsyncClient, dim: int) -> None:
    for request in asking_for(dim):
        answer = await http.request(**request)
        assert answer.status_code == 422, answer.text
        assert "dim" in answer.json()["detail"] or "is beyond 64 bits" in answer.json()["detail"]


async def test_a_bundle_without_short_embeddings_says_how_to_get_them(app: FastAPI, http: httpx.AsyncClient) -> None:
    served = app.state.service.runtime
    manifest = served.bundle.manifest.model_copy(update={"reduction": None})
    bundle = served.bundle.model_copy(update={"manifest": manifest})
    app.state.service.runtime = replace(served, bundle=bundle)
    for request in asking_for(32):
        answer = await http.request(**request)
        assert answer.status_code == 409
        assert "`rankone reduce BUNDLE DATA OUT`" in answer.json()["detail"]
    assert (await http.put("/indexes/full", json={"dim": 10_000})).json()["dim"] == 10_000
    assert (await http.get("/info")).json()["short"] is None


async def test_info_says_which_lengths_there_are(http: httpx.AsyncClient, bundle: Bundle) -> None:
    short = (await http.get("/info")).json()["short"]
    assert (short["dim"], short["method"]) == (longest(bundle), "within-class")
    assert short["recommended"] in short["lengths"]


def test_client_and_commands_ask_for_short_embeddings(
    start: Start, photos: DataSet, images: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process: Process = start()
    with process.ready() as client:
        rows = client.embed(images[:2], dim=32)
        assert rows.shape == (2, 32)
        assert client.create_index("short", dim=32).properties["dim"] == 32
        client.add_vectors(rows, ["0", "1"], index="short")
        assert [hits[0].id for hits in client.search(images[:2], index="short")] == ["0", "1"]
        assert client.embed([], dim=32).shape == (0, 32)
    out, url = tmp_path / "rows.npy", ["--url", process.url]
    assert run("embed", [*map(str, photos.test.paths[:2]), "--dim", "32", "--out", str(out), *url]) == 0
    assert np.allclose(np.load(out), rows, atol=1e-6)
    assert run("index", ["create", "other", "--dim", "16", "--kind", "compact", *url]) == 0
    assert "index other: 16 numbers an item, 0 items" in capsys.readouterr().out
    assert run("index", ["list", str(tmp_path / "index")]) == 0
    listed = capsys.readouterr().out
    assert [line.split()[:4] for line in listed.splitlines()[1:]] == [
        ["default", "0", "10,000", "exact"],
        ["other", "0", "16", "compact"],
        ["short", "2", "32", "exact"],
    ]
