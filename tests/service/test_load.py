"""What happens when there is more than can be done: refusals that say when to come back, deadlines, and clients that leave."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import httpx
import pytest
from fastapi import FastAPI

from rankone.model.bundle import Bundle
from rankone.model.engine import EngineOutOfMemory, Outputs
from rankone.model.engine.base import Images
from rankone.service.inference.inference import Admission, Inference
from rankone.service.runtime import Runtime, load
from rankone.service.settings import Settings
from tests.services import client_of, exchange, multipart, serving

pytestmark = pytest.mark.anyio


class Brake:
    """Holds every run of an engine until it is let go."""

    def __init__(self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
        self._run, self.started, self.go = runtime.engine.run, threading.Semaphore(0), threading.Event()
        self.num_images: list[int] = []
        monkeypatch.setattr(runtime.engine, "run", self)

    def __call__(self, images: Images) -> Outputs:
        self.num_images.append(len(images))
        self.started.release()
        assert self.go.wait(30)
        return self._run(images)

    async def is_held(self) -> None:
        assert await asyncio.to_thread(self.started.acquire, timeout=30)


@pytest.fixture
async def brake(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Brake]:
    brake = Brake(app.state.service.runtime, monkeypatch)
    yield brake
    brake.go.set()


async def test_over_the_limit_it_answers_429_and_when_to_come_back(
    app: FastAPI, http: httpx.AsyncClient, brake: Brake, images: list[bytes]
) -> None:
    """The same rule for one image and for several, before anything is decoded."""
    runtime = app.state.service.runtime
    inference = Inference(Admission(4, lambda: 0.5), runtime.pool, runtime.batcher)  # 3 images take 6 s
    app.state.service.runtime = replace(runtime, inference=inference)
    held = asyncio.create_task(http.post("/embed", files=multipart(images[:3])))
    await brake.is_held()
    for count, status in ((2, 429), (8, 429)):
        response = await http.post("/embed", files=multipart(images[:count]))
        assert (response.status_code, response.headers["retry-after"]) == (status, "6"), response.text
    fits = asyncio.create_task(http.post("/embed", files=multipart(images[:1])))
    await asyncio.sleep(0.05)
    assert (await http.post("/embed", files=multipart(images[:1]))).status_code == 429
    brake.go.set()
    assert [response.status_code for response in await asyncio.gather(held, fits)] == [200, 200]
    assert (await http.post("/embed", files=multipart(images[:4]))).status_code == 200


@pytest.mark.parametrize("route", ["/embed", "/classify", "/search?k=1", "/explain?target=class", "/v1/embeddings"])
async def test_of_a_body_that_there_is_no_room_for_nothing_is_read(
    app: FastAPI, http: httpx.AsyncClient, brake: Brake, images: list[bytes], route: str
) -> None:
    runtime = app.state.service.runtime
    inference = Inference(Admission(1, lambda: 0.5), runtime.pool, runtime.batcher)
    app.state.service.runtime = replace(runtime, inference=inference)
    num_read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal num_read
        num_read += 1
        yield images[0]

    held = asyncio.create_task(http.post("/embed", files=multipart(images[:1])))
    await brake.is_held()
    refused = await http.post(route, content=body(), headers={"content-type": "image/png"})
    assert (refused.status_code, refused.headers["retry-after"], num_read) == (429, "2", 0), refused.text
    assert refused.headers["content-type"] == "application/problem+json"
    too_long = await http.post(route, content=body(), headers={"content-length": "2000001"})
    assert (too_long.status_code, num_read) == (413, 0), "to try again would be of no use"
    path = route.partition("?")[0]
    assert f'route="{path}",status="429"' in (await http.get("/metrics")).text
    vector = [1.0] + [0.0] * (runtime.bundle.manifest.dim - 1)
    unrelated = await http.post("/indexes/default/search", json={"vectors": [vector]})
    assert unrelated.status_code == 200, "vectors need no room"
    brake.go.set()
    assert (await held).status_code == 200


async def test_a_deadline_is_kept(http: httpx.AsyncClient, brake: Brake, images: list[bytes]) -> None:
    """The answer says 504 while the engine still works; a request that has more time is answered."""
    patient = asyncio.create_task(http.post("/embed", files=multipart(images[:1])))
    await brake.is_held()
    late = await http.post("/embed", files=multipart(images[:1]), headers={"x-request-timeout": "1"})
    assert late.status_code == 504
    assert late.json()["detail"] == "no answer within the 1 s that this request allows"
    brake.go.set()
    assert (await patient).status_code == 200
    assert brake.num_images == [1], "what was late has not been run"


async def test_an_answer_that_has_begun_is_completed_after_the_deadline(app: FastAPI) -> None:
    """1.5 MB in many parts, to a client that takes its time."""
    timeout = [(b"x-request-timeout", b"0.8")]
    statuses, num_bytes = await exchange(app, "GET", "/docs/swagger-ui-bundle.js", headers=timeout, slow_s=0.05)
    assert (statuses, num_bytes > 1_400_000) == ([200], True)


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon", "601"])
async def test_a_timeout_that_makes_no_sense_is_refused(http: httpx.AsyncClient, seconds: str) -> None:
    response = await http.get("/info", headers={"x-request-timeout": seconds})
    assert response.status_code == 422
    assert "at most 600" in response.json()["detail"]


async def test_the_work_of_a_client_that_leaves_is_dropped(app: FastAPI, brake: Brake, images: list[bytes]) -> None:
    leaves, kind = asyncio.Event(), [(b"content-type", b"image/png")]
    first = asyncio.create_task(exchange(app, "POST", "/embed", images[0], kind))
    await brake.is_held()
    second = asyncio.create_task(exchange(app, "POST", "/embed", images[1], kind, leaves=leaves))
    await asyncio.sleep(0.1)
    leaves.set()
    assert (await second)[0] == [499]
    brake.go.set()
    assert (await first)[0] == [200]
    assert brake.num_images == [1]


async def test_out_of_memory_of_a_single_image_says_try_later(
    app: FastAPI, http: httpx.AsyncClient, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_: Images) -> Outputs:
        raise EngineOutOfMemory("the card is full")

    monkeypatch.setattr(app.state.service.runtime.engine, "run", run)
    response = await http.post("/embed", files=multipart(images[:1]))
    assert (response.status_code, response.json()["detail"]) == (503, "the card is full")


async def test_bodies_together_have_a_limit(settings: Settings, loaded: Runtime, anyio_backend: str) -> None:
    async with serving(settings.model_copy(update={"max_total_bytes": 100_000}), loaded) as app, client_of(app) as http:
        go_on = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield b"x" * 90_000
            await go_on.wait()
            yield b"x"

        headers = {"content-type": "image/png"}
        held = asyncio.create_task(http.post("/embed", content=body(), headers=headers))
        await asyncio.sleep(0.05)
        refused = await http.post("/embed", content=b"y" * 20_000, headers=headers)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        go_on.set()
        assert (await held).status_code == 415
        assert (await http.post("/embed", content=b"y" * 20_000, headers=headers)).status_code == 415


async def test_a_dead_worker_or_engine_shows_and_is_replaced(
    app: FastAPI,
    http: httpx.AsyncClient,
    images: list[bytes],
    bundle: Bundle,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ready is 503 while one is missing, health while none decodes; requests are answered, and each death is counted."""
    runtime = await load(bundle, settings.model_copy(update={"workers": 2}), app.state.metrics, app.state.indexes)
    app.state.service.runtime = runtime
    os.kill(runtime.pool.pids[0], signal.SIGKILL)
    await _until(lambda: not runtime.pool.is_complete)
    assert (await http.get("/healthz")).status_code == 200
    assert (await http.get("/readyz")).status_code == 503
    await _until(lambda: runtime.pool.is_complete)
    for pid in runtime.pool.pids:
        os.kill(pid, signal.SIGKILL)
    await _until(lambda: not runtime.pool.is_alive)
    for route in ("/healthz", "/readyz"):
        response = await http.get(route)
        assert response.status_code == 503
        assert "a decode worker has died" in response.json()["detail"]
    assert (await http.post("/embed", files=multipart(images[:4]))).status_code == 200
    await _until(lambda: runtime.pool.is_complete)
    with monkeypatch.context() as patch:
        patch.setattr(runtime.engine, "run", sys.exit)
        assert (await http.post("/embed", files=multipart(images[:1]))).status_code == 500
    assert (await http.post("/embed", files=multipart(images[:1]))).status_code == 200
    assert (await http.get("/healthz")).status_code == 200
    deaths = re.findall(
        r'^rankone_worker_deaths_total{worker="(\w+)"} (.*)', (await http.get("/metrics")).text, re.MULTILINE
    )
    assert sorted(deaths) == [("batch", "0.0"), ("decode", "3.0"), ("engine", "1.0")]
    await app.state.service.retire(app.state.service.replace(None))


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.001)
