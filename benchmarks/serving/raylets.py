"""A Ray cluster of one or two nodes on one machine: a raylet on each loopback address, started and killed like a machine.

Ray takes 127.0.0.1 for "this machine" and replaces it, so the addresses are 127.0.0.2 and 127.0.0.5. All proxies would bind the
same port, so only that of the first node, the head, is to be used ("HeadOnly").
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from benchmarks.serving.contenders import becomes_ready, cpu_s_of, free_port, read
from rankone.service.cluster.application import PROXY

HEAD: Final = "127.0.0.2"
OTHER: Final = "127.0.0.5"
_TRIES: Final = 3
ENVIRONMENT: Final = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}
REPLICA: Final = "ray::ServeReplica"
"""How the processes of replicas are named."""
ACTOR: Final = "ray::MapWorker"
"""And those of a job's actors."""


@dataclass
class Cluster:
    """A running cluster. `ray start` of each node leads a session of its own, to which all that it starts belongs."""

    folder: Path
    proxy: bool
    gcs: str = ""
    dashboard: str = ""
    nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    """By address."""

    def add(self, address: str, cpus: int, *flags: str) -> None:
        """Starts a node. The first one is the head."""
        ray = Path(sys.executable).with_name("ray")
        where = [f"--node-ip-address={address}", f"--num-cpus={cpus}"]
        fixed = ["--num-gpus=0", "--block", "--disable-usage-stats", f"--object-store-memory={100_000_000}"]
        environment = {**os.environ, **ENVIRONMENT, PROXY: str(int(self.proxy)), "PYTHONPATH": str(Path.cwd())}
        with (self.folder / f"{address}.log").open("wb") as log:
            self.nodes[address] = subprocess.Popen(  # noqa: S603 - our own arguments
                [ray, "start", *where, *fixed, *flags],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def pids(self, start: str, address: str | None = None) -> list[int]:
        """Processes of a node, or of all, whose command line begins with or whose program is `start`."""
        leaders = {process.pid for name, process in self.nodes.items() if address in (None, name)}
        return [pid for pid in _processes() if _session(pid) in leaders and start in _command(pid)]

    def cpu_s(self) -> float:
        """Seconds of CPU time of all processes that run."""
        return sum(cpu_s_of(pid) for pid in self.pids(""))

    def kill_node(self, address: str) -> None:
        """Ends all processes of a node at once, as a power cut would."""
        process = self.nodes.pop(address)
        while found := [pid for pid in _processes() if _session(pid) == process.pid and pid != process.pid]:
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        process.kill()
        process.wait()

    def log(self) -> str:
        """What `ray start` printed."""
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(self.folder.glob("*.log")))


@contextmanager
def raylets(num_nodes: int = 2, cpus: int = 2, *, proxy: bool = True) -> Iterator[Cluster]:
    """A cluster whose nodes say that they have `cpus` processors, with HAProxy or, to compare, Ray Serve's own proxy."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: sockets lie below it, whose paths may have 107 bytes
    cluster = Cluster(folder, proxy)
    gcs, board = free_port(HEAD), free_port(HEAD)
    cluster.gcs, cluster.dashboard = f"{HEAD}:{gcs}", f"http://{HEAD}:{board}"
    try:
        dashboard = [f"--dashboard-host={HEAD}", f"--dashboard-port={board}", "--include-dashboard=true"]
        cluster.add(HEAD, cpus, "--head", f"--port={gcs}", *dashboard, f"--temp-dir={folder}")
        if not becomes_ready(cluster.nodes[HEAD], f"{cluster.dashboard}/api/serve/applications/"):
            raise RuntimeError(f"the cluster did not start: {cluster.log()}")
        if num_nodes == 2:
            _join(cluster, OTHER, cpus)
        yield cluster
    finally:
        for address in reversed([*cluster.nodes]):
            cluster.kill_node(address)
        shutil.rmtree(folder, ignore_errors=True)


def _join(cluster: Cluster, address: str, cpus: int) -> None:
    """Adds a node and returns when it belongs to the cluster. On a busy machine Ray gives up after 30 s; it is tried again."""
    expected = len(cluster.nodes) + 1
    for _ in range(_TRIES):
        cluster.add(address, cpus, f"--address={cluster.gcs}")
        while cluster.nodes[address].poll() is None:
            answer = httpx.get(f"{cluster.dashboard}/nodes?view=summary", trust_env=False, timeout=30).json()
            states = [node["raylet"].get("state") for node in answer["data"]["summary"]]
            if states.count("ALIVE") >= expected:
                return
            time.sleep(0.2)
        cluster.kill_node(address)  # what is left of it
    raise RuntimeError(f"{address} did not join: {cluster.log()}")


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _session(pid: int) -> int:
    fields = read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return int(fields[3]) if fields else -1


def _command(pid: int) -> str:
    return read(Path(f"/proc/{pid}/cmdline")).replace("\0", " ")
