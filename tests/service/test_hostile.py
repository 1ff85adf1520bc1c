"""Hostile images and mutilated bytes: 2xx or 4xx, within the memory that one image may take, and the service lives on."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from rankone.index import Indexes
from rankone.model.bundle import Bundle
from rankone.service.observe.metrics import Metrics
from rankone.service.runtime import Runtime, load
from rankone.service.settings import Settings
from tests.service.hostile import hostile
from tests.services import client_of, fail, multipart, serving

pytestmark = pytest.mark.anyio

MEMORY: dict[str, int] = {"decode_memory_bytes": 400_000_000, "workers": 1}


@pytest.fixture(scope="module")
async def strict(anyio_backend: str, tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runtime]:
    """One decode worker, which may take 400 MB for an image."""
    settings = Settings(bundle=tiny.path, data=tmp_path_factory.mktemp("hostile"), **MEMORY)  # type: ignore[arg-type]
    indexes = Indexes(settings.data)
    runtime = await load(tiny, settings, Metrics(), indexes)
    yield runtime
    await runtime.close()
    indexes.close()


@pytest.fixture(scope="module")
async def http(strict: Runtime, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    own = strict.settings.model_copy(update={"data": tmp_path_factory.mktemp("own")})
    async with serving(own, strict) as app, client_of(app) as http:
        yield http


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


@pytest.fixture(scope="module")
async def kept(http: httpx.AsyncClient) -> str:
    """Where images are added to an index with thumbnails."""
    assert (await http.put("/indexes/kept", json={"thumbnails": True})).status_code == 201
    return "/indexes/kept/items"


@pytest.mark.parametrize("is_kept", [False, True])
async def test_hostile_images_are_answered_and_bounded(
    http: httpx.AsyncClient, strict: Runtime, kept: str, is_kept: bool
) -> None:
    (pid,) = strict.pool.pids
    before = peak_bytes(pid)
    for name, data, allowed in hostile():
        if is_kept:
            response = await http.post(kept, files=multipart([data]))
        else:
            response = await http.post("/embed", content=data, headers={"content-type": "image/png"})
        status = 200 if response.status_code == 201 else response.status_code
        assert status in allowed, f"{name}: {response.status_code} {response.text[:200]}"
        if status != 200:
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["errors"][0]["index"] == 0
    assert strict.pool.pids == [pid], "no image ended the worker"
    assert peak_bytes(pid) - before < MEMORY["decode_memory_bytes"]


async def test_a_thumbnail_is_made_by_a_decode_worker_and_nowhere_else(
    http: httpx.AsyncClient, strict: Runtime, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is decoded in this process; a worker that is killed from outside is replaced, and its image tried again."""
    (pid,) = strict.pool.pids
    parts = multipart([WHOLE[0]])
    monkeypatch.setattr(Image, "open", fail)
    os.kill(pid, signal.SIGSTOP)
    asyncio.get_running_loop().call_later(0.2, os.kill, pid, signal.SIGKILL)
    unlucky = await http.post(kept, files=parts)
    assert unlucky.status_code == 201
    item_id = (await http.post(kept, files=parts)).json()["ids"][0]
    item = (await http.get(f"{kept}/{item_id}", params={"thumbnail": True})).json()
    assert base64.b64decode(item["thumbnail"]).startswith(b"\xff\xd8\xff")
    assert pid not in strict.pool.pids


WHOLE = [data for name, data, allowed in hostile() if allowed == {200} and len(data) < 20_000]


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.sampled_from(WHOLE),
    changes=st.lists(st.tuples(st.integers(0, 20_000), st.binary(min_size=0, max_size=8)), max_size=6),
    cut=st.integers(0, 20_000),
)
async def test_mutilated_images_are_never_a_fault_of_ours(
    http: httpx.AsyncClient, data: bytes, changes: list[tuple[int, bytes]], cut: int
) -> None:
    mutilated = bytearray(data)
    for at, change in changes:
        mutilated[at % len(mutilated) : at % len(mutilated) + len(change)] = change
    response = await http.post(
        "/embed", content=bytes(mutilated[: max(cut, 1)]), headers={"content-type": "image/jpeg"}
    )
    assert response.status_code in (200, 413, 415, 422), response.text


@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    body=st.binary(max_size=300),
    kind=st.sampled_from(["application/json", "multipart/form-data; boundary=x", "image/png", "text/plain", ""]),
    route=st.sampled_from(["/embed", "/v1/embeddings", "/indexes/default/items", "/indexes/default/search"]),
    accept=st.sampled_from(["*/*", "application/x-npy", "text/html", "application/json;q=nonsense"]),
)
async def test_any_bytes_of_any_kind_are_refused_in_words(
    http: httpx.AsyncClient, body: bytes, kind: str, route: str, accept: str
) -> None:
    response = await http.post(route, content=body, headers={"content-type": kind, "accept": accept})
    assert 400 <= response.status_code < 500, response.text
    assert response.headers["content-type"] == "application/problem+json"
