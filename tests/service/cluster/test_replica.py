"""A replica by the hooks that Ray Serve calls, in their order. Without Ray."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from uvicorn import Config
from uvicorn.lifespan.on import LifespanOn

from benchmarks.bundles import tiny_bundle
from rankone.model.bundle import Bundle, BundleError
from rankone.service.bundles import LoadConflict
from rankone.service.cluster.application import PROXY, NotInCluster
from rankone.service.cluster.replica import Replica, Unhealthy

pytestmark = pytest.mark.anyio

GIVEN = {"settings": {"allow_anonymous": True, "workers": 1, "threads": 1}, "indexes": False}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(PROXY, "1")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("rankone.service.observe.logs.configure", lambda _: None)


@contextlib.asynccontextmanager
async def replica_of(**arguments: Any) -> AsyncIterator[tuple[Replica, httpx.AsyncClient]]:
    """A replica whose lifespan runs, as Ray Serve runs it, and what asks it."""
    replica = Replica({**GIVEN, **arguments})
    app = replica.__serve_build_asgi_app__()
    lifespan = LifespanOn(Config(app, lifespan="on", log_config=None))
    await lifespan.startup()
    assert not lifespan.should_exit
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost") as http:
        yield replica, http
    await lifespan.shutdown()
    assert not lifespan.should_exit


def folders_in(path: Path) -> list[str]:
    """What replicas keep on disk."""
    return [folder.name for folder in path.glob("rankone-replicas-*/*")]


def ended_process() -> int:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


async def test_it_serves_the_bundle_that_it_is_told_and_swaps_it(
    anyio_backend: str, tiny: Bundle, tmp_path: Path
) -> None:
    other = tiny_bundle(tmp_path / "other", "2")
    async with replica_of() as (replica, http):
        with pytest.raises(Unhealthy, match="no bundle is loaded"):
            await replica.check_health()
        await replica.reconfigure({"bundle": str(tiny.path)})
        await replica.check_health()
        assert (await http.get("/info")).json()["fingerprint"] == tiny.fingerprint
        await replica.reconfigure({"bundle": str(other.path)})
        assert (await http.get("/info")).json()["fingerprint"] == other.fingerprint
        (listed,) = (await http.get("/models")).json()["models"]
        assert (listed["version"], listed["state"]) == ("2", "served")


async def test_a_bundle_that_cannot_be_served_leaves_the_one_before(
    anyio_backend: str, tiny: Bundle, tmp_path: Path
) -> None:
    async with replica_of() as (replica, http):
        await replica.reconfigure({"bundle": str(tiny.path)})
        with pytest.raises(LoadConflict, match="what was served still is"):
            await replica.reconfigure({"bundle": str(tmp_path / "nothing")})
        await replica.check_health()
        assert (await http.get("/info")).json()["fingerprint"] == tiny.fingerprint


async def test_a_first_bundle_that_cannot_be_served_is_an_error(anyio_backend: str, tmp_path: Path) -> None:
    async with replica_of() as (replica, _):
        with pytest.raises(BundleError, match="is not a bundle"):
            await replica.reconfigure({"bundle": str(tmp_path / "nothing")})


async def test_a_bundle_whose_network_cannot_run_is_an_error(anyio_backend: str, tiny: Bundle, tmp_path: Path) -> None:
    """Found by the engine, after the app has started."""
    broken = tiny_bundle(tmp_path / "broken")
    (broken.path / "model.onnx").write_bytes(b"changed")
    async with replica_of() as (replica, _):
        with pytest.raises(BundleError, match="is not the file its manifest describes"):
            await replica.reconfigure({"bundle": str(broken.path)})


async def test_what_needs_an_index_is_refused_and_nothing_is_kept(
    anyio_backend: str, tiny: Bundle, tmp_path: Path, images: list[bytes]
) -> None:
    async with replica_of() as (replica, http):
        await replica.reconfigure({"bundle": str(tiny.path)})
        for method, path in (("GET", "/indexes"), ("POST", "/indexes/default/items"), ("POST", "/search")):
            answer = await http.request(method, path)
            assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
            assert "keeps no indexes" in answer.json()["detail"]
        headers = {"content-type": "image/png"}
        assert (await http.post("/embed", content=images[0], headers=headers)).status_code == 200
        assert folders_in(tmp_path) == [str(os.getpid())]
    assert folders_in(tmp_path) == []


async def test_a_key_is_asked_for_before_an_index_is_refused(anyio_backend: str, tiny: Bundle, tmp_path: Path) -> None:
    from rankone.service.auth.keys import add_key

    add_key(tmp_path / "keys.json", "joe", frozenset({"read"}))
    async with replica_of(settings={"keys": str(tmp_path / "keys.json"), "workers": 1}) as (replica, http):
        await replica.reconfigure({"bundle": str(tiny.path)})
        assert (await http.get("/indexes")).status_code == 401


async def test_the_folder_of_a_replica_that_was_killed_is_removed(
    anyio_backend: str, tiny: Bundle, tmp_path: Path
) -> None:
    left = tmp_path / f"rankone-replicas-{os.getuid()}" / str(ended_process())
    left.mkdir(parents=True)
    async with replica_of() as (replica, _):
        await replica.reconfigure({"bundle": str(tiny.path)})
        assert not left.exists()


async def test_a_dead_part_is_told_to_ray_serve(anyio_backend: str, tiny: Bundle) -> None:
    async with replica_of() as (replica, _):
        await replica.reconfigure({"bundle": str(tiny.path)})
        assert replica._app is not None
        batcher = replica._app.state.service.runtime.batcher
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(batcher), "is_alive", property(lambda _: False))
            with pytest.raises(Unhealthy, match="the engine's thread has died"):
                await replica.check_health()
        await replica.check_health()


async def test_it_needs_haproxy_and_shared_indexes(
    anyio_backend: str, tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with replica_of(indexes=True) as (replica, _):
        with pytest.raises(NotInCluster, match="cannot be shared by replicas"):
            await replica.reconfigure({"bundle": str(tiny.path)})
    for value in ("", "0"):
        monkeypatch.setenv(PROXY, value)
        with pytest.raises(NotInCluster, match=f"without {PROXY}=1 on this machine"):
            Replica(GIVEN)
