"""Several bundles: which is served, and how another one takes its place."""

from __future__ import annotations

import asyncio
import re
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from fastapi import FastAPI
from onnx import numpy_helper

from benchmarks.bundles import tiny_bundle
from rankone.model.bundle import MANIFEST, ONNX, WEIGHTS, BundleError, read_manifest, seal, staged
from rankone.model.engine import Outputs
from rankone.model.engine.base import Images
from rankone.service.app import create_app
from rankone.service.settings import Settings
from tests.services import client_of, multipart

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good bundles, the second newer, and two directories that are none."""
    for version in ("1", "2"):
        tiny_bundle(tmp_path / "bundles" / f"v{version}", version)
    (tmp_path / "bundles" / "empty").mkdir()
    (tmp_path / "bundles" / ".half-written").mkdir()
    return tmp_path / "bundles"


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[FastAPI, httpx.AsyncClient]]:
    """The app with its whole life, ready."""
    failures: list[Exception] = []
    app = create_app(Settings(bundles=folder, data=folder.parent / "index", workers=1), failures.append)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        http = await stack.enter_async_context(client_of(app))
        while (await http.get("/readyz")).status_code != 200:
            assert not failures, failures
            await asyncio.sleep(0.02)
        yield app, http


async def test_the_newest_is_served_and_all_are_listed(folder: Path) -> None:
    async with served(folder) as (_, http):
        assert (await http.get("/info")).json()["version"] == "2"
        models = (await http.get("/models")).json()["models"]
    assert [(entry["version"], entry["state"]) for entry in models] == [
        ("2", "served"), ("1", "available"), (None, "broken"),
    ]  # fmt: skip
    assert "has no readable manifest.json" in models[2]["detail"]


async def test_one_whose_files_have_changed_is_passed_over(folder: Path) -> None:
    with (folder / "v2" / "model.onnx").open("ab") as file:
        file.write(b"x")
    async with served(folder) as (_, http):
        assert (await http.get("/info")).json()["version"] == "1"
        refused = await http.post("/models/tiny/2/load")
        assert refused.status_code == 409
        assert "what was served still is" in refused.json()["detail"]
        assert "is not the file its manifest describes" in refused.json()["detail"]
        assert (await http.get("/info")).json()["version"] == "1"


async def test_a_swap_drops_no_request(folder: Path, images: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has begun ends with the model it began with, one that comes later gets the new one."""
    async with served(folder) as (app, http):
        before = app.state.service.runtime
        started, go = threading.Event(), threading.Event()
        run = before.engine.run

        def hold(pixels: Images) -> Outputs:
            started.set()
            assert go.wait(30)
            outputs: Outputs = run(pixels)
            return outputs

        monkeypatch.setattr(before.engine, "run", hold)
        begun = asyncio.create_task(http.post("/embed", files=multipart(images[:1])))
        assert await asyncio.to_thread(started.wait, 30)
        loaded = await http.post("/models/tiny/1/load", headers={"x-request-timeout": "0.001"})  # has no deadline
        assert (loaded.status_code, loaded.json()["version"]) == (200, "1")
        assert (await http.post("/embed", files=multipart(images[:1]))).json()["version"] == "1"
        assert before.pool.pids, "its workers stay until its last request has ended"
        go.set()
        response = await begun
        assert (response.status_code, response.json()["version"]) == (200, "2")
        for _ in range(100):
            if not before.batcher.is_alive:
                break
            await asyncio.sleep(0.05)
        assert not before.batcher.is_alive
        assert [entry["state"] for entry in (await http.get("/models")).json()["models"]][:2] == ["available", "served"]


async def test_under_load_every_request_is_answered_while_models_change(folder: Path, images: list[bytes]) -> None:
    async with served(folder) as (_, http):
        statuses, versions, over = list[int](), set[str](), asyncio.Event()

        async def client() -> None:
            while not over.is_set():
                response = await http.post("/embed", files=multipart(images[:2]))
                statuses.append(response.status_code)
                versions.add(response.json()["version"])

        clients = [asyncio.create_task(client()) for _ in range(4)]
        for version in ("1", "2", "1"):
            assert (await http.post(f"/models/tiny/{version}/load")).status_code == 200
        over.set()
        await asyncio.gather(*clients)
    assert set(statuses) == {200}
    assert versions == {"1", "2"}


async def test_what_cannot_be_loaded_is_said(folder: Path) -> None:
    async with served(folder) as (_, http):
        assert "no bundle tiny 3" in (await http.post("/models/tiny/3/load")).json()["detail"]
        first = asyncio.create_task(http.post("/models/tiny/1/load"))
        await asyncio.sleep(0)
        both = [await http.post("/models/tiny/1/load"), await first]
        assert sorted(response.status_code for response in both) == [200, 409]
        tiny_bundle(folder / "again", "1")
        twice = await http.post("/models/tiny/1/load")
        assert (twice.status_code, "are both tiny 1" in twice.json()["detail"]) == (409, True)


async def test_a_folder_that_cannot_be_listed_is_said(folder: Path) -> None:
    async with served(folder) as (_, http):
        await asyncio.to_thread(folder.rename, folder.with_name("elsewhere"))
        listing, loading = await http.get("/models"), await http.post("/models/tiny/1/load")
        assert (listing.status_code, "cannot be listed" in listing.json()["detail"]) == (503, True)
        assert (loading.status_code, "cannot be listed" in loading.json()["detail"]) == (409, True)
        assert (await http.get("/info")).json()["version"] == "2"


async def test_a_date_without_a_zone_makes_a_bundle_broken(folder: Path) -> None:
    """It stands before or after no other date."""
    manifest = folder / "v2" / MANIFEST
    manifest.write_text(re.sub(r'("created": "[^"]*)Z"', r'\1"', manifest.read_text()))
    async with served(folder) as (_, http):
        models = (await http.get("/models")).json()["models"]
    assert [(entry["version"], entry["state"]) for entry in models] == [
        ("1", "served"), (None, "broken"), (None, "broken"),
    ]  # fmt: skip
    assert "timezone" in models[2]["detail"]


async def test_one_without_the_file_of_the_engine_is_passed_over(folder: Path) -> None:
    record = read_manifest(folder / "v2")[0]
    with staged(folder / "v3") as stage:
        (stage / WEIGHTS).write_bytes(b"x")
        seal(stage, record.model_copy(update={"version": "3", "created": datetime.now(UTC)}), folder / "v3")
    async with served(folder) as (_, http):
        assert (await http.get("/info")).json()["version"] == "2"
    failures: list[Exception] = []
    app = create_app(Settings(bundle=folder / "v3", data=folder.parent / "index"), failures.append)
    async with app.router.lifespan_context(app):
        while not failures:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert isinstance(failures[0], BundleError)
    assert "v3 has no model.onnx" in str(failures[0])


def no_network(stage: Path) -> None:
    (stage / ONNX).write_bytes(b"no network")


def no_numbers(stage: Path) -> None:
    model = onnx.load(stage / ONNX)
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "weights")
    weights.CopyFrom(numpy_helper.from_array(np.full((3, 10_000), np.nan, np.float32), "weights"))
    onnx.save(model, stage / ONNX)


def untouched(_: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "manifest", "sentence"),
    [
        (no_network, {}, "the onnx engine cannot run the network in"),
        (no_numbers, {}, "the network of tiny 3 answers an image with NaN or infinity"),
        (
            untouched,
            {"dim": 77},
            "{'embedding': (1, 10000)}, and its manifest says {'embedding': (1, 77)}: export it again",
        ),
        (untouched, {"classes": ("a", "b")}, "its manifest says {'embedding': (1, 10000), 'logits': (1, 2)}"),
    ],
)
async def test_a_sound_file_with_a_network_that_cannot_serve_is_passed_over(
    folder: Path, change: Callable[[Path], None], manifest: dict[str, object], sentence: str
) -> None:
    """Its checksums are those of the manifest."""
    record = read_manifest(folder / "v2")[0].model_copy(
        update={"version": "3", "created": datetime.now(UTC), **manifest}
    )
    with staged(folder / "v3") as stage:
        shutil.copy(folder / "v2" / ONNX, stage)
        change(stage)
        seal(stage, record, folder / "v3")
    async with served(folder) as (_, http):
        assert (await http.get("/info")).json()["version"] == "2"
        refused = await http.post("/models/tiny/3/load")
        assert refused.status_code == 409
        assert sentence in refused.json()["detail"]
        assert (await http.get("/info")).json()["version"] == "2"


async def test_the_end_waits_for_every_model_that_was_served(folder: Path) -> None:
    async with served(folder) as (app, http):
        with app.state.service.leased() as first:
            for version in ("1", "2"):
                assert (await http.post(f"/models/tiny/{version}/load")).status_code == 200
            ending = asyncio.create_task(app.state.models.close())
            await asyncio.wait([ending], timeout=0.5)
            assert not ending.done(), "the first still has a request"
        await ending
        assert not first.batcher.is_alive


async def test_a_folder_without_a_bundle_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "bundles").mkdir()
    for path, sentence in ((tmp_path / "bundles", "holds no bundle"), (tmp_path / "none", "cannot be listed")):
        failures: list[Exception] = []
        app = create_app(Settings(bundles=path, data=tmp_path / "index"), failures.append)
        async with app.router.lifespan_context(app):
            while not failures:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert isinstance(failures[0], BundleError)
        assert sentence in str(failures[0])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"bundle": "a", "bundles": "b"}, "not both"),
        ({"max_queue": 3, "max_images": 4}, "must hold a request of max_images"),
        ({"request_timeout_s": 100, "max_request_timeout_s": 50}, "must not be shorter"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Settings(**settings)  # type: ignore[arg-type]
