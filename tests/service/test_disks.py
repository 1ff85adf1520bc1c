"""What disks do to a service, over HTTP: damaged logs, no room, read-only. Each is told where an operator looks."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rankone.cli.index import accept
from rankone.service.runtime import Runtime
from tests.disks import fill, free_bytes, read_only, small_disk
from tests.index.oracle import unit
from tests.services import client_of, serving

pytestmark = pytest.mark.anyio
URL = "/indexes/default"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 8) as disk:
        yield disk


def body(light: Runtime, first: int, count: int) -> dict[str, Any]:
    vectors = unit(count, light.bundle.manifest.dim, first + 1)
    return {"items": [{"id": f"i{first + n}", "vector": vector.tolist()} for n, vector in enumerate(vectors)]}


async def add_until_full(http: httpx.AsyncClient, light: Runtime) -> int:
    count = 0
    while (response := await http.post(f"{URL}/items", json=body(light, count, 20))).status_code == 201:
        count += 20
    assert response.status_code == 507
    assert "no room left on the disk; nothing of this request was stored" in response.json()["detail"]
    assert (await http.get(URL)).json()["count"] == count
    return count


async def test_a_damaged_log_is_told_by_readyz_info_and_log_until_it_is_accepted(
    light: Runtime, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    running = light.settings.model_copy(update={"data": tmp_path / "running"})
    async with serving(running, light) as app, client_of(app) as http:
        for first in range(4):
            assert (await http.post(f"{URL}/items", json=body(light, first, 1))).status_code == 201
        shutil.copytree(tmp_path / "running", tmp_path / "killed")
    log = tmp_path / "killed" / "default.sqlite-wal"
    data = log.read_bytes()
    log.write_bytes(data[:-5000] + bytes(5000))
    killed = light.settings.model_copy(update={"data": tmp_path / "killed"})
    with caplog.at_level(logging.WARNING, "rankone"):
        async with serving(killed, light) as app, client_of(app) as http:
            text = "the last sequence number that is kept is 3, and the changes after it, up to 4, are lost"
            assert text in (await http.get("/readyz")).json()["indexes"]["default"]
            assert text in (await http.get("/info")).json()["index_problems"]["default"]
            assert (await http.get(URL)).json()["count"] == 3
            assert text in (await http.get(URL)).json()["detail"]
            accept(str(tmp_path / "killed"))
            assert (await http.get("/readyz")).json() == {"status": "ready"}
            assert (await http.post(f"{URL}/items", json=body(light, 9, 1))).json()["sequence"] == 5
    assert sum(text in record.message for record in caplog.records) == 1
    (copy,) = (tmp_path / "killed").glob("default.sqlite-wal-*")
    assert copy.read_bytes() == log.read_bytes() if log.exists() else copy.read_bytes() == data[:-5000] + bytes(5000)


async def test_on_a_full_disk_items_and_indexes_can_be_removed_and_none_made(light: Runtime, disk: Path) -> None:
    data = disk / "index"
    async with serving(light.settings.model_copy(update={"data": data}), light) as app, client_of(app) as http:
        assert (await http.put("/indexes/mine")).status_code == 201
        count = await add_until_full(http, light)
        fill(disk)
        before = sorted(path.name for path in data.iterdir())
        made = await http.put("/indexes/new")
        assert (made.status_code, "nothing was made" in made.json()["detail"]) == (507, True)
        assert sorted(path.name for path in data.iterdir()) == before
        assert (await http.get("/indexes/new")).status_code == 404
        removed = await http.post(f"{URL}/items/delete", json={"ids": [f"i{n}" for n in range(20)]})
        assert (removed.status_code, removed.json()) == (200, {"deleted": 20})
        assert (await http.delete(f"{URL}/items/i20")).status_code == 200
        assert (await http.delete("/indexes/mine?confirm=mine")).status_code == 200
        assert (await http.get(URL)).json()["count"] == count - 21
        assert (await http.post(f"{URL}/items", json=body(light, 9000, 5))).status_code == 201
        assert (await http.get("/readyz")).json() == {"status": "ready"}


async def test_a_start_on_a_full_disk_is_not_called_damage(light: Runtime, disk: Path) -> None:
    settings = light.settings.model_copy(update={"data": disk / "index"})
    async with serving(settings, light) as app, client_of(app) as http:
        assert (await http.post(f"{URL}/items", json=body(light, 0, 3))).status_code == 201
    (disk / "index" / ".ballast").unlink()
    filling = fill(disk)
    assert free_bytes(disk) == 0
    async with serving(settings, light) as app, client_of(app) as http:
        problem = (await http.get("/readyz")).json()["indexes"]["default"]
        assert "the disk is full" in problem
        assert "backup" not in problem
        refused = await http.post(f"{URL}/items", json=body(light, 3, 1))
        assert (refused.status_code, refused.json()["detail"]) == (507, problem)
        filling.unlink()
        app.state.indexes._try_one("default")  # as its thread does
        assert (await http.get("/readyz")).json() == {"status": "ready"}
        assert (await http.get(URL)).json()["count"] == 3


async def test_an_index_is_not_dropped_on_a_read_only_disk_and_goes_on(light: Runtime, disk: Path) -> None:
    data = disk / "index"
    async with serving(light.settings.model_copy(update={"data": data}), light) as app, client_of(app) as http:
        assert (await http.put("/indexes/mine")).status_code == 201
        added = await http.post("/indexes/mine/items", json=body(light, 0, 3))
        assert added.status_code == 201
        with read_only(data):
            refused = await http.delete("/indexes/mine?confirm=mine")
            assert refused.status_code == 503
            assert "'mine' cannot be dropped and stays as it is" in refused.json()["detail"]
            assert (await http.put("/indexes/new")).status_code == 503
            query = {"vectors": [body(light, 0, 1)["items"][0]["vector"]], "k": 5}
            found = await http.post("/indexes/mine/search", json=query)
            assert len(found.json()["results"][0]) == 3
        assert (await http.delete("/indexes/mine?confirm=mine")).json() == {"deleted": 3}
