"""`rankone bench cluster`: the service behind Ray Serve beside the plain one, and what kills and swaps lose.

Everything runs on this machine: two raylets, their replicas, the load generator. So replicas bring no speed here; what is
measured is what the way through Ray costs, and what is lost when a part is killed.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import uvloop

from benchmarks.bundles import bundle_of, jpegs, tiny_bundle
from benchmarks.serving.contenders import NPY, Contender, comes_true, service
from benchmarks.serving.load import Sample, closed_loop, request, run
from benchmarks.serving.raylets import HEAD, OTHER, REPLICA, Cluster, raylets
from benchmarks.timing import console, machine, table
from rankone.client import Client, ServiceError
from rankone.model.bundle import Bundle
from rankone.service.cluster.application import PROXY, to_serve
from rankone.service.settings import Settings

_PORT: Final = 18100
_ROUNDS: Final = 3
_TURN_S: Final = 4.0
_CLIENTS: Final = (1, 16)
_SIZE: Final = (640, 480)


def main(bundle: Path | None = None) -> None:
    """Prints every table."""
    console.print(f"[bold]cluster[/bold]: {machine()}")
    with bundle_of(bundle) as opened, tempfile.TemporaryDirectory() as folder:
        tiny = tiny_bundle(Path(folder, "tiny"))
        overhead({"the bundle": opened, "a network of no cost": tiny})
        losses(tiny, tiny_bundle(Path(folder, "other"), "2"))


def without_check(arguments: dict[str, Any]) -> Any:
    """The application of `rankone.service.cluster.deployment`, also where Ray was started without HAProxy."""
    from ray import serve

    from rankone.service.cluster.replica import Replica

    class Unchecked(Replica):
        def __init__(self, arguments: dict[str, Any]) -> None:
            os.environ[PROXY] = "1"  # read by our check alone: Ray has read it before
            super().__init__(arguments)

    deployment: Any = serve.deployment(name="rankone")
    return deployment(serve.ingress()(Unchecked)).bind(arguments)


@dataclass
class Way:
    """A way to a replica, and what came of the load on it."""

    contender: Contender
    host: str
    cpu_s: Callable[[], float]
    """Processor time that all of its processes have used."""
    samples: dict[int, Sample] = field(default_factory=lambda: {clients: Sample() for clients in _CLIENTS})
    """By clients."""


def overhead(bundles: dict[str, Bundle]) -> None:
    """Prints latency, throughput and processor time of one replica behind each proxy, in turns with the plain service."""
    for name, bundle in bundles.items():
        ways: dict[str, Way] = {}
        for proxy in (True, False):  # one cluster at a time: both would want the same ports
            rival = f"Ray Serve, {'HAProxy' if proxy else 'its own proxy'}"
            with service(bundle, 1, "--workers", "1") as plain, _served(bundle, 1, proxy=proxy) as cluster:
                head = Contender(rival, _PORT, cluster.nodes[HEAD].pid, "/embed")
                before = cluster.cpu_s()
                time.sleep(_TURN_S)
                console.print(f"{rival}: at rest, Ray uses {(cluster.cpu_s() - before) / _TURN_S:.0%} of a processor")
                pair = {
                    f"plain, beside {rival}": Way(plain, "127.0.0.1", plain.cpu_s),
                    rival: Way(head, HEAD, cluster.cpu_s),
                }
                _take_turns(pair)
                ways |= pair
        _print(name, ways)


def _take_turns(ways: dict[str, Way]) -> None:
    files = jpegs(16, _SIZE)
    for turn in range(-1, _ROUNDS):  # the first does not count
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            way = ways[name]
            requests = [way.contender.single(file) for file in files]
            for clients in _CLIENTS:
                found = run(closed_loop(way.host, way.contender.port, requests, clients, _TURN_S), way.cpu_s)
                if turn >= 0:
                    way.samples[clients] += found


def _print(title: str, ways: dict[str, Way]) -> None:
    clients = ("1 client" if count == 1 else f"{count} clients" for count in _CLIENTS)
    columns = [f"{who}: {what}" for who in clients for what in ("p50 ms", "p99 ms", "requests/s")]
    what = f"{title}: one image of {_SIZE[0]} x {_SIZE[1]} a request, 1 replica of 1 thread"
    rows = table(what, "", *columns, "CPU ms a request", "other than 200")
    for name, way in ways.items():
        cells, total = list[str](), sum(way.samples.values(), Sample())
        for sample in way.samples.values():
            cells += [f"{1e3 * sample.percentile(50):.1f}", f"{1e3 * sample.percentile(99):.1f}", f"{sample.per_s:.1f}"]
        rows.add_row(name, *cells, f"{total.cpu_ms:.1f}", str(dict(total.others) or 0))
    console.print(rows)


@dataclass
class Lost:
    """Requests while something was done: those of a bare loop by status, and those of our client."""

    bare: Sample = field(default_factory=Sample)
    num_answers: int = 0
    errors: list[str] = field(default_factory=list)


def losses(bundle: Bundle, other: Bundle) -> None:
    """Prints what is lost by three kills of a replica, two swaps, and the kill of a node, of two replicas on two nodes."""
    rows = table("losses, two replicas", "", "requests", "not answered", "by the client", "not answered")
    with _served(bundle, 2, proxy=True, num_nodes=2) as cluster:
        _wait_until(lambda: all(cluster.pids(REPLICA, address) for address in (HEAD, OTHER)))

        def kill() -> None:
            killed = cluster.pids(REPLICA)[0]
            os.kill(killed, signal.SIGKILL)
            _wait_until(lambda: killed not in (now := cluster.pids(REPLICA)) and len(now) == 2)

        def kill_node() -> None:
            cluster.kill_node(OTHER)
            time.sleep(10)

        steps: tuple[tuple[str, Callable[[], None]], ...] = (
            *[("a replica is killed", kill)] * 3,
            ("another bundle is deployed", partial(_deploy, cluster, other, 2)),
            ("and the first one again", partial(_deploy, cluster, bundle, 2)),
            ("a node is killed, its raylet and all", kill_node),
        )
        for name, do in steps:
            with _loaded() as lost:
                do()
            bare, answered = lost.bare, lost.num_answers + len(lost.errors)
            cells = (str(dict(bare.others) or 0), f"{answered:,}", str(lost.errors[:2] or 0))
            rows.add_row(name, f"{bare.statuses.total():,}", *cells)
    console.print(rows)


@contextmanager
def _loaded() -> Iterator[Lost]:
    """Four bare loops and two clients that embed while the block runs, and two seconds before and after."""
    lost, ends = Lost(), Event()
    file = jpegs(1, (64, 64))[0]

    def bare() -> None:
        while not ends.is_set():
            data = [request("/embed", file, "image/jpeg", [NPY])]
            lost.bare += uvloop.run(closed_loop(HEAD, _PORT, data, 4, 0.5))

    def ask() -> None:
        with Client(f"http://{HEAD}:{_PORT}") as client:
            while not ends.is_set():
                try:
                    client.embed([file])
                    lost.num_answers += 1
                except ServiceError as error:
                    lost.errors.append(str(error))

    threads = [Thread(target=bare), Thread(target=ask), Thread(target=ask)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(2)
        yield lost
        time.sleep(2)
    finally:
        ends.set()
        for thread in threads:
            thread.join()


@contextmanager
def _served(bundle: Bundle, replicas: int, *, proxy: bool, num_nodes: int = 1) -> Iterator[Cluster]:
    with raylets(num_nodes, cpus=2, proxy=proxy) as cluster:
        _deploy(cluster, bundle, replicas)
        yield cluster


def _deploy(cluster: Cluster, bundle: Bundle, replicas: int) -> None:
    """Returns when the replicas run."""
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    settings = Settings(bundle=bundle.path, allow_anonymous=True, threads=1, workers=1, port=_PORT)
    wanted = to_serve(settings, replicas=replicas, indexes=False, proxies="HeadOnly")
    wanted["applications"][0]["import_path"] = "benchmarks.serving.cluster:without_check"
    client = ServeSubmissionClient(cluster.dashboard)
    client.deploy_applications(wanted)
    _wait_until(lambda: client.get_serve_details()["applications"]["rankone"]["status"] == "RUNNING")
    time.sleep(2)  # HAProxy learns of a replica after Ray Serve


def _wait_until(true: Callable[[], bool]) -> None:
    if not comes_true(true):
        raise RuntimeError("the cluster did not become what it should")
