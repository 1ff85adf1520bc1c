"""The whole service, killed, on a disk that fails and on one that is full: what it said 201 to is there."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from rankone.index import DEFAULT, Indexes, Item
from rankone.service.runtime import Runtime
from rankone.service.settings import Settings
from tests.index.crash.audit import audit
from tests.index.crash.clients import Client, Refused, content
from tests.index.crash.ledger import Account, Ledger, owner_of
from tests.index.crash.record import built
from tests.services import Process, Start, client_of, serving

DIM = 10_000
URL = "/indexes/default"


def sent(item_id: str, version: int) -> Item:
    """An item as a client sends it that has a vector and no image."""
    return replace(content(item_id, version, DIM), sha256=None, thumbnail=None)


def body(items: Sequence[Item]) -> dict[str, Any]:
    return {"items": [{"id": i.id, "vector": i.vector.tolist(), "metadata": i.metadata} for i in items]}


class OverHttp:
    """The index of a running service, as a client sees it."""

    def __init__(self, url: str) -> None:
        self._url = url

    def put(self, items: Sequence[Item]) -> int:
        return int(self._post(f"{URL}/items", body(items))["sequence"])

    def delete(self, ids: Sequence[str], where: Mapping[str, Any] | None) -> int:
        self._post(f"{URL}/items/delete", {"filter": where} if where else {"ids": list(ids)})
        return 0

    def nearest(self, item: Item, k: int) -> list[tuple[str, Mapping[str, Any]]]:
        (hits,) = self._post(f"{URL}/search", {"vectors": [item.vector.tolist()], "k": k})["results"]
        return [(hit["id"], hit["metadata"]) for hit in hits]

    def _post(self, path: str, json: Mapping[str, Any]) -> dict[str, Any]:
        try:
            response = httpx.post(self._url + path, json=json, timeout=60, trust_env=False)
        except httpx.TransportError as error:
            raise Refused from error
        if response.status_code in (503, 507):
            raise Refused(response.text)
        assert response.is_success, response.text
        answer: dict[str, Any] = response.json()
        return answer


def clients_of(process: Process, ledger: Ledger, folder: Path, seed: str) -> list[Client]:
    """Two of them; what is in the index is known from the ledger."""
    settled = Account.of((folder / "ledger").read_bytes()).settled
    clients = [Client(f"c{n}", OverHttp(process.url), ledger, settled, seed, DIM) for n in range(2)]
    for client in clients:
        client.shares = False
    return clients


def test_the_service_loses_nothing_to_kill_9(start: Start, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    acknowledged = 0
    for turn, delay_s in enumerate((0.5, 1.1)):
        process = start()
        process.ready().close()
        clients = clients_of(process, ledger, tmp_path, str(turn))
        for client in clients:
            client.start()
        clients[0].join(delay_s)
        process.end(signal.SIGKILL)
        for client in clients:
            client.join()
        account = Account.of((tmp_path / "ledger").read_bytes())
        shutil.copytree(tmp_path / "index", tmp_path / "copy")
        found, faults = audit(tmp_path / "copy", account, sent)
        assert faults == []
        shutil.rmtree(tmp_path / "copy")
        ledger.settle(found)
        acknowledged += account.num_acknowledged
    assert acknowledged > 5
    ledger.close()


def test_a_disk_that_fails_is_told_and_nothing_acknowledged_is_lost(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsync fails for real, below SQLite, from one moment on."""
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("there is no C compiler on this machine, which the library that makes fsync fail needs")
    failing = tmp_path / "failing"
    with monkeypatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(built(tmp_path)))
        patch.setenv("RECORD_ROOT", str(tmp_path / "index"))
        patch.setenv("RECORD_TO", str(tmp_path / "record"))
        patch.setenv("FAIL_SYNC_WHILE", str(failing))
        process = start()
    process.ready().close()
    ledger = Ledger(tmp_path / "ledger")
    for client in (clients := clients_of(process, ledger, tmp_path, "0")):
        client.start()
    while Account.of((tmp_path / "ledger").read_bytes()).num_acknowledged < 10:
        assert clients[0].is_alive()
        clients[0].join(0.1)
    failing.touch()
    for client in clients:
        client.join()
    failing.unlink()
    with httpx.Client(base_url=process.url, trust_env=False) as http:
        ready, info = http.get("/readyz").json(), http.get("/info").json()
        for told in (ready["indexes"], info["index_problems"]):
            assert "SQLITE_IOERR_FSYNC" in told[DEFAULT]
            assert "nothing more is stored" in told[DEFAULT]
        refused = http.post(f"{URL}/items", json=body([sent("c0-1", 1)]))
        assert (refused.status_code, "the disk failed" in refused.json()["detail"]) == (503, True)
    account = Account.of((tmp_path / "ledger").read_bytes())
    found = {item_id: metadata["version"] for item_id, metadata in OverHttp(process.url).nearest(sent("c0-1", 1), 100)}
    for owner in account.owners:  # searches go on
        assert {item: version for item, version in found.items() if owner_of(item) == owner} in account.outcomes(owner)
    process.end(signal.SIGKILL)
    _, faults = audit(tmp_path / "index", account, sent)
    assert faults == []
    ledger.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Four megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.anyio
async def test_a_full_disk_is_507_until_there_is_room(
    small_disk: Path, settings: Settings, loaded: Runtime, anyio_backend: str
) -> None:
    (small_disk / "ballast").write_bytes(bytes(1 << 20))
    stored: list[Item] = []
    there = settings.model_copy(update={"data": small_disk / "index"})
    async with serving(there, loaded) as app, client_of(app) as http:
        while True:
            items = [sent(f"c0-{len(stored) + number}", 1) for number in range(4)]
            response = await http.post(f"{URL}/items", json=body(items))
            if response.status_code != 201:
                break
            stored += items
        assert response.status_code == 507
        assert "no room left on the disk; nothing of this request was stored" in response.json()["detail"]
        query = {"vectors": [item.vector.tolist() for item in stored[-8:]], "k": 1}
        for room in (False, True):
            if room:
                (small_disk / "ballast").unlink()
                assert (await http.post(f"{URL}/items", json=body(items))).status_code == 201
            found = (await http.post(f"{URL}/search", json=query)).json()["results"]
            assert [hits[0]["id"] for hits in found] == [item.id for item in stored[-8:]]
            assert (await http.get(URL)).json()["count"] == len(stored) + 4 * room
            assert (await http.get("/readyz")).json() == {"status": "ready"}
    indexes = Indexes(small_disk / "index")
    index = indexes.open(DEFAULT)
    assert [item.id for _, item in index.page(1000)] == [item.id for item in [*stored, *items]]
    assert all(np.array_equal(index.get(i.id).vector, i.vector.astype(np.float16)) for i in stored)
    indexes.close()
