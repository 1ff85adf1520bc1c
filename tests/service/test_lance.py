"""The service on published versions: a job's files are published and searched over HTTP, and nothing can be stored."""

from __future__ import annotations

import base64
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import anyio.to_thread
import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from benchmarks.bundles import TINY_DIM
from rankone.__main__ import run
from rankone.model.bundle import Bundle
from rankone.model.folders import LeftOut
from rankone.service.doctor import examine
from rankone.service.job.run import run as run_job
from rankone.service.job.sources import find
from rankone.service.runtime import Runtime
from rankone.service.settings import Settings
from tests.services import Start, client_of, serving

pytest.importorskip("lance", reason="pylance, of rankone[lance], is not installed")


def quiet(_: int) -> None:
    pass


@pytest.fixture
def photos_folder(tmp_path: Path, images: list[bytes]) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, data in enumerate(images[:5]):
        (folder / f"{number}.png").write_bytes(data)
    return folder


@pytest.fixture
def place(tmp_path: Path, tiny: Bundle, photos_folder: Path) -> str:
    """A job's five photographs, published as the index `default`."""
    settings = Settings(bundle=tiny.path, threads=1, workers=1, thumbnails=True)
    run_job(find([str(photos_folder)], LeftOut()), tmp_path / "job", settings, shard_size=2, tell=quiet)
    place = f"lance:{tmp_path / 'published'}"
    assert run("index", ["publish", place, "default", str(tmp_path / "job")]) == 0
    return place


@pytest.fixture
async def app(light: Runtime, place: str) -> AsyncIterator[FastAPI]:
    async with serving(light.settings.model_copy(update={"index": place}), light) as app:
        yield app


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as http:
        yield http


@pytest.mark.anyio
async def test_what_a_job_embedded_is_found(http: httpx.AsyncClient, images: list[bytes], photos_folder: Path) -> None:
    answer = await http.post("/search?k=3", files={"images": ("image", images[2])})
    body = answer.json()
    assert (body["kind"], body["backend"], body["recall"]) == ("compact", "lance", None)
    assert body["results"][0][0]["id"].endswith("photos/2.png")
    assert body["results"][0][0]["score"] == pytest.approx(1, abs=1e-3)
    listed = (await http.get("/indexes/default/items?limit=3")).json()
    assert [item["id"][-5:] for item in listed["items"]] == ["0.png", "1.png", "2.png"]
    rest = (await http.get(f"/indexes/default/items?cursor={listed['next_cursor']}")).json()
    assert [item["id"][-5:] for item in rest["items"]] == ["3.png", "4.png"]
    item_id = listed["items"][1]["id"]
    item = (await http.get(f"/indexes/default/items/{item_id}?vector=true")).json()
    assert (len(item["vector"]), len(item["sha256"])) == (TINY_DIM, 64)
    thumbnail = await http.get(f"/indexes/default/items/{item_id}/thumbnail")
    assert (thumbnail.status_code, thumbnail.content[:2]) == (200, b"\xff\xd8")
    same = await http.post("/indexes/default/search", json={"ids": [item_id], "k": 2, "exclude_self": True})
    assert item_id not in [hit["id"] for hit in same.json()["results"][0]]
    about = (await http.get("/indexes/default")).json()
    assert (about["count"], about["backend"], about["thumbnails"], about["device"]) == (5, "lance", True, None)
    assert (await http.get("/info")).json()["index_backend"] == "lance"
    assert "rankone_index_items" in (await http.get("/metrics")).text


@pytest.mark.anyio
async def test_nothing_is_stored_and_one_sentence_says_why(http: httpx.AsyncClient, images: list[bytes]) -> None:
    item = (await http.get("/indexes/default/items?limit=1")).json()["items"][0]["id"]
    image = base64.b64encode(images[0]).decode()
    for method, path, body in (
        ("POST", "/indexes/default/items", {"items": [{"id": "new", "image": image}]}),
        ("POST", "/indexes/default/items/delete", {"ids": [item]}),
        ("DELETE", f"/indexes/default/items/{item}", None),
        ("PATCH", f"/indexes/default/items/{item}", {"metadata": {"a": 1}}),
        ("PUT", "/indexes/new", {}),
    ):
        answer = await http.request(method, path, json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json"), path
        assert "published versions, which are only read: `rankone index publish`" in answer.json()["detail"]
    assert (await http.get("/indexes/default")).json()["count"] == 5
    assert (await http.get("/indexes/default/map")).status_code == 404
    assert [index["name"] for index in (await http.get("/indexes")).json()["indexes"]] == ["default"]


@pytest.mark.anyio
async def test_a_new_version_is_seen_whole(
    app: FastAPI, http: httpx.AsyncClient, place: str, tmp_path: Path, tiny: Bundle, images: list[bytes]
) -> None:
    more = tmp_path / "more"
    more.mkdir()
    (more / "new.png").write_bytes(images[7])
    settings = Settings(bundle=tiny.path, threads=1, workers=1, thumbnails=True)
    job = partial(run_job, find([str(more)], LeftOut()), tmp_path / "second", settings, tell=quiet)
    await anyio.to_thread.run_sync(job)
    assert run("index", ["publish", place, "default", str(tmp_path / "job"), str(tmp_path / "second")]) == 0
    assert run("index", ["publish", place, "another", str(tmp_path / "second")]) == 0
    asked = {"images": [base64.b64encode(images[7]).decode()], "k": 1}
    before = (await http.post("/search", json=asked)).json()["results"][0][0]
    app.state.indexes.refresh()
    after = (await http.post("/search", json=asked)).json()["results"][0][0]
    assert not before["id"].endswith("new.png")
    assert after["id"].endswith("new.png")
    assert (await http.get("/indexes/default")).json()["count"] == 6
    assert (await http.get("/indexes/another")).json()["count"] == 1


@pytest.mark.anyio
async def test_vectors_of_another_model_are_not_searched(app: FastAPI, http: httpx.AsyncClient, light: Runtime) -> None:
    index = app.state.indexes.open("default")
    vector = np.asarray(index.page(1)[0][1].vector, np.float32).tolist()
    assert (await http.post("/indexes/default/search", json={"vectors": [vector]})).status_code == 200
    index.spec = type(index.spec)("b" * 64, index.spec.dim)
    answer = await http.post("/indexes/default/search", json={"vectors": [vector]})
    assert (answer.status_code, "was made with the bundle" in answer.json()["detail"]) == (409, True)


def test_an_unfinished_job_is_not_published(place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    next((tmp_path / "job").glob("part-*1.parquet")).unlink()
    assert run("index", ["publish", place, "default", str(tmp_path / "job")]) != 0
    assert "has not finished: 1 files are missing" in capsys.readouterr().err


def test_the_doctor_reads_them(place: str, tiny: Bundle, tmp_path: Path) -> None:
    found = [one for one in examine(Settings(bundle=tiny.path, index=place)) if one.area == "indexes"]
    assert [(one.name, one.state) for one in found] == [("database", "ok"), ("default", "ok")]
    assert "the published versions can be read" in found[0].says
    nowhere = Settings(bundle=tiny.path, index="lance:nosuch://bucket/x")
    (found_not,) = [one for one in examine(nowhere) if one.area == "indexes"]
    assert (found_not.state, "docs/lance.md" in (found_not.mend or "")) == ("problem", True)


def test_a_process_serves_them(start: Start, tiny: Bundle, place: str, images: list[bytes]) -> None:
    process = start(tiny.path, index=place)
    with process.ready() as client:
        assert client.search([images[3]], k=1)[0][0].id.endswith("3.png")
    assert process.end()[0] == -signal.SIGTERM
