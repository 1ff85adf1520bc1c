"""The whole service, killed, on a disk that fails and on one that is full: what it said 201 to is there."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from rankone.index import DEFAULT, Indexes, Item
from rankone.service.runtime import Runtime
from rankone.service.settings import Settings
from tests.disks import small_disk
from tests.index.crash.audit import audit
from tests.index.crash.ledger import Account, Ledger, owner_of
from tests.index.crash.record import built
from tests.service.over_http import URL, OverHttp, body, clients_of, sent
from tests.services import Start, client_of, serving


def test_the_service_loses_nothing_to_kill_9(start: Start, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")

    def account() -> Account:
        return Account.of((tmp_path / "ledger").read_bytes())

    for turn, count in enumerate((3, 8)):
        process = start()
        process.ready().close()
        clients = clients_of(process.url, ledger, tmp_path, str(turn))
        for client in clients:
            client.start()
        while account().num_acknowledged < count:
            clients[0].join(0.01)
            assert all(client.is_alive() for client in clients)
        process.end(signal.SIGKILL)
        for client in clients:
            client.join()
        shutil.copytree(tmp_path / "index", tmp_path / "copy")
        found, faults = audit(tmp_path / "copy", account(), sent)
        assert faults == []
        shutil.rmtree(tmp_path / "copy")
        ledger.settle(found)
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
    for client in (clients := clients_of(process.url, ledger, tmp_path, "0")):
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
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", 4) as disk:
        yield disk


@pytest.mark.anyio
async def test_a_full_disk_is_507_until_there_is_room(
    disk: Path, settings: Settings, loaded: Runtime, anyio_backend: str
) -> None:
    (disk / "ballast").write_bytes(bytes(1 << 20))
    stored: list[Item] = []
    there = settings.model_copy(update={"data": disk / "index"})
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
                (disk / "ballast").unlink()
                assert (await http.post(f"{URL}/items", json=body(items))).status_code == 201
            found = (await http.post(f"{URL}/search", json=query)).json()["results"]
            assert [hits[0]["id"] for hits in found] == [item.id for item in stored[-8:]]
            assert (await http.get(URL)).json()["count"] == len(stored) + 4 * room
            assert (await http.get("/readyz")).json() == {"status": "ready"}
    indexes = Indexes(disk / "index")
    index = indexes.open(DEFAULT)
    assert [item.id for _, item in index.page(1000)] == [item.id for item in [*stored, *items]]
    assert all(np.array_equal(index.get(i.id).vector, i.vector.astype(np.float16)) for i in stored)
    indexes.close()
