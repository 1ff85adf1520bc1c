"""Two real Ray nodes on this machine, the service as two replicas on them, and what kills and swaps lose.

The tests run in the order in which they stand: the last one kills a node.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.bundles import jpegs, tiny_bundle
from benchmarks.serving.raylets import ACTOR, ENVIRONMENT, HEAD, REPLICA, Cluster, raylets
from rankone.client import Client
from rankone.model.bundle import Bundle
from rankone.service.cluster.deploy import DeployFailed, deploy
from rankone.service.settings import Settings

pytestmark = pytest.mark.cluster

PORT = 18000
URL = f"http://{HEAD}:{PORT}"
OTHER = "127.0.0.5"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with raylets(2, cpus=3) as cluster, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_DASHBOARD_ADDRESS", cluster.dashboard)
        patch.setattr("rankone.service.observe.logs.configure", lambda _: None)
        yield cluster


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def first(cluster: Cluster, folder: Path) -> Bundle:
    """The bundle that two replicas serve."""
    bundle = tiny_bundle(folder / "first")
    serve(bundle)
    return bundle


def serve(bundle: Bundle) -> None:
    settings = Settings(bundle=bundle.path, allow_anonymous=True, threads=1, workers=1, port=PORT)
    deploy(settings, replicas=2, indexes=False, proxies="HeadOnly")


@dataclass
class Load:
    """What clients were answered while something was done to the service."""

    answered: list[str] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    @property
    def num_ended(self) -> int:
        return len(self.answered) + len(self.failures)


def embed(client: Client, image: bytes, name: str) -> None:
    client.embed([image])


def add(client: Client, image: bytes, name: str) -> None:
    client.add([image], [name])


@contextmanager
def load(image: bytes, ask: Callable[[Client, bytes, str], None] = embed) -> Iterator[Load]:
    """Clients that ask one request after another while the block runs, and have ten answers before it and after it."""
    found, ends = Load(), threading.Event()

    def run(number: int) -> None:
        with Client(URL) as client:
            for count in itertools.takewhile(lambda _: not ends.is_set(), itertools.count()):
                name = f"{number}/{count}"
                try:
                    ask(client, image, name)
                except Exception as error:
                    found.failures.append(error)
                else:
                    found.answered.append(name)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: found.num_ended >= 10)
        yield found
        seen = found.num_ended
        wait_until(lambda: found.num_ended >= seen + 10)
    finally:
        ends.set()
        for thread in threads:
            thread.join()


def wait_until(true: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_bundle_that_is_not_there_is_refused_before_ray_is_asked(cluster: Cluster, folder: Path) -> None:
    from rankone.model.bundle import BundleError

    with pytest.raises(BundleError, match="nothing is not a bundle"):
        deploy(Settings(bundle=folder / "nothing", allow_anonymous=True), replicas=1, indexes=False)


def test_replicas_answer_on_both_nodes(cluster: Cluster, first: Bundle, images: list[bytes]) -> None:
    assert {len(cluster.pids(REPLICA, address)) for address in cluster.nodes} <= {0, 1, 2}
    assert len(cluster.pids(REPLICA)) == 2
    with Client(URL) as client:
        assert client.info()["fingerprint"] == first.fingerprint
        assert client.embed(images[:2]).shape == (2, 10_000)


def test_another_port_cannot_be_had_while_it_runs(cluster: Cluster, first: Bundle) -> None:
    with pytest.raises(DeployFailed, match=f"listens on port {PORT} already"):
        deploy(Settings(bundle=first.path, allow_anonymous=True), replicas=2, indexes=False)


def test_a_killed_replica_costs_its_users_nothing(cluster: Cluster, first: Bundle, images: list[bytes]) -> None:
    with load(images[0]) as found:
        killed, _ = cluster.pids(REPLICA)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: killed not in (now := cluster.pids(REPLICA)) and len(now) == 2)
    assert found.failures == []


def test_another_bundle_is_swapped_in_without_new_replicas(
    cluster: Cluster, first: Bundle, folder: Path, images: list[bytes]
) -> None:
    wait_until(lambda: len(cluster.pids(REPLICA)) == 2)
    before, other = set(cluster.pids(REPLICA)), tiny_bundle(folder / "other", "2")
    with load(images[0]) as found, Client(URL) as client:
        serve(other)
        wait_until(lambda: client.info()["fingerprint"] == other.fingerprint)
    assert set(cluster.pids(REPLICA)) == before
    assert found.failures == []


def test_a_job_has_every_image_once_whatever_is_killed(cluster: Cluster, first: Bundle, folder: Path) -> None:
    """Its actor and its driver; the service keeps the other processors."""
    photos, out = folder / "photos", folder / "out"
    photos.mkdir()
    for number, data in enumerate(jpegs(40, (96, 96))):
        (photos / f"{number:02}.jpg").write_bytes(data)
    (photos / "bad.jpg").write_bytes(b"no image")
    flags = ["--bundle", str(first.path), str(photos), "--out", str(out), "--shard", "1", "--cluster", cluster.gcs]
    command = [sys.executable, "-m", "rankone", "embed", *flags]
    environment = {**os.environ, **ENVIRONMENT, "RANKONE_THREADS": "1", "RANKONE_WORKERS": "1"}

    def num_done() -> int:
        return len([*out.glob("part-*.parquet")])

    def actor_killed() -> bool:
        for pid in cluster.pids(ACTOR):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return True
        return False

    with subprocess.Popen(command, env=environment) as killed:
        wait_until(lambda: num_done() >= 3)
        killed.kill()
    wait_until(lambda: cluster.pids(ACTOR) == [])  # Ray ends them: the next ones are of the next driver
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as driver:
        wait_until(actor_killed)
        printed, _ = driver.communicate(timeout=300)
    assert (driver.returncode, printed) == (1, f"40 images in 41 files in {out}\n")
    names = [name for path in out.glob("part-*.parquet") for name in pq.read_table(path)["id"].to_pylist()]
    assert sorted(names) == [f"{photos}/{number:02}.jpg" for number in range(40)]


def test_a_broken_bundle_is_refused_by_the_replicas_and_told(
    cluster: Cluster, first: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the bundle is sound on the machine of the command, and not on another."""
    monkeypatch.setattr("rankone.service.cluster.deploy.open_bundle", lambda _: None)
    settings = Settings(bundle=folder / "nothing", allow_anonymous=True, threads=1, workers=1, port=PORT)
    with pytest.raises(DeployFailed, match="the replicas do not start: .*nothing is not a bundle") as raised:
        deploy(settings, replicas=2, indexes=False, proxies="HeadOnly")
    assert "\n" not in str(raised.value)
    with Client(URL) as client:
        assert client.info()["version"] == "2"  # by the replica that was not asked to load it


def test_replicas_share_indexes_in_postgresql_and_a_killed_one_loses_nothing(
    cluster: Cluster, first: Bundle, images: list[bytes], database: str
) -> None:
    settings = Settings(bundle=first.path, allow_anonymous=True, threads=1, workers=1, port=PORT, index=database)
    deploy(settings, replicas=2, indexes=True, proxies="HeadOnly")
    wait_until(lambda: len(cluster.pids(REPLICA)) == 2)
    with load(images[0], add) as found:
        killed, _ = cluster.pids(REPLICA)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: killed not in (now := cluster.pids(REPLICA)) and len(now) == 2)
    assert found.failures == []
    with Client(URL) as client:
        assert set(found.answered) <= {item.id for item in client.items()}
        assert {hit.id for hit in client.search([images[0]], k=3)[0]} <= set(found.answered)


def test_a_killed_node_costs_its_users_nothing(cluster: Cluster, first: Bundle, images: list[bytes]) -> None:
    serve(first)
    wait_until(lambda: all(cluster.pids(REPLICA, address) for address in (HEAD, OTHER)))
    with load(images[0]) as found:
        cluster.kill_node(OTHER)
        time.sleep(5)
    assert found.failures == []
