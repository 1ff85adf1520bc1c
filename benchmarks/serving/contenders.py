"""The servers under load, each a process of its own: the service, and LitServe with the same bundle."""

from __future__ import annotations

import base64
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import httpx
import uvloop

from benchmarks.bundles import jpegs
from benchmarks.serving.load import closed_loop, request
from benchmarks.timing import console
from rankone.model.bundle import Bundle

HOST: Final = "127.0.0.1"
LONG_S: Final = 3600.0
"""A timeout that does not pass while a server is stopped."""
NPY: Final = "Accept: application/x-npy"
_BOUNDARY: Final = b"rankone-boundary"
_START_S: Final = 120.0
_WARM_UP: Final = 8
_LITSERVE_BATCH: Final = 4
_LITSERVE_TIMEOUT_S: Final = 30.0
"""LitServe's default."""
_TIMEOUTS: Final = ("--request-timeout-s", "--max-request-timeout-s", "--receive-timeout-s", "--decode-timeout-s")


@dataclass(frozen=True)
class Contender:
    """A running server that embeds images."""

    name: str
    port: int
    pid: int
    path: str

    def single(self, image: bytes, accept: str = NPY, query: str = "", timeout_s: float = 60.0) -> bytes:
        """A request of one image, in the form that costs this server least. LitServe ignores the timeout."""
        if self.name == "LitServe":
            return request(self.path, b'{"image": "%s"}' % base64.b64encode(image), "application/json", [accept])
        return request(self.path + query, image, "image/jpeg", [accept, f"X-Request-Timeout: {timeout_s}"])

    def batch(self, images: Sequence[bytes]) -> bytes:
        """A request of several images, as a multipart form."""
        head = b"--%s\r\nContent-Disposition: form-data; name=images; filename=a.jpg\r\n\r\n" % _BOUNDARY
        body = b"".join(head + image + b"\r\n" for image in images) + b"--%s--\r\n" % _BOUNDARY
        return request(self.path, body, f"multipart/form-data; boundary={_BOUNDARY.decode()}", [NPY])

    @contextmanager
    def asleep(self) -> Iterator[None]:
        """Stops the processes, except while `awake`, as an idle server may use the CPU too."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    @contextmanager
    def awake(self) -> Iterator[Contender]:
        """Lets a sleeping server run in this block."""
        self.signal(signal.SIGCONT)
        try:
            yield self
        finally:
            self.signal(signal.SIGSTOP)

    def cpu_s(self) -> float:
        """Seconds of CPU time of the server and its children."""
        return sum(cpu_s_of(pid) for pid in _tree(self.pid))

    def signal(self, number: int) -> None:
        """Sends a signal to the server and its children."""
        for pid in _tree(self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


Contenders: TypeAlias = Mapping[str, Contender]
"""By name, all started and asleep."""


@contextmanager
def service(bundle: Bundle, threads: int, *flags: str) -> Iterator[Contender]:
    """`rankone serve` with its defaults, but always by the engine that its rivals run."""
    with tempfile.TemporaryDirectory() as data:
        options = {"--bundle": bundle.path, "--data": data, "--engine": "onnx", "--threads": threads}
        command = ["rankone", "serve", *(str(part) for option in options.items() for part in option), *flags]
        with _running("rankone", command, "/embed", "/readyz") as contender:
            yield contender


@contextmanager
def contenders_of(
    bundle: Bundle, threads: int, timeout_s: float | None = None, *, with_peer: bool = True
) -> Iterator[Contenders]:
    """The service and, if installed, LitServe (one worker, its default), with their own timeouts or with `timeout_s`."""
    starts = [service(bundle, threads, *(part for flag in _TIMEOUTS if timeout_s for part in (flag, str(timeout_s))))]
    if with_peer and importlib.util.find_spec("litserve") is not None:
        options = [str(option) for option in (threads, _LITSERVE_BATCH, timeout_s or _LITSERVE_TIMEOUT_S)]
        command = ["benchmarks.serving.litserve_peer", str(bundle.path), *options]
        starts.append(_running("LitServe", command, "/predict", "/health"))
    elif with_peer:
        console.print("LitServe is not installed (`make peers`), so it is not measured")
    with ExitStack() as stack:
        contenders = {}
        for start in starts:
            contender = stack.enter_context(start)
            stack.enter_context(contender.asleep())
            contenders[contender.name] = contender
        yield contenders


@contextmanager
def _running(name: str, command: list[str], path: str, health: str) -> Iterator[Contender]:
    port = free_port(HOST)
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: S603 - our own modules
            [sys.executable, "-m", *command, "--port", str(port)],
            stdout=log,
            stderr=log,
            start_new_session=True,  # Linux shares a busy processor between sessions, not between processes
        )
        contender = Contender(name, port, process.pid, path)
        try:
            if not becomes_ready(process, f"http://{HOST}:{port}{health}"):
                raise RuntimeError(f"{process.args!r} did not become ready")
            warm_up = [contender.single(file) for file in jpegs(_WARM_UP)]
            uvloop.run(closed_loop(HOST, port, warm_up, _WARM_UP, 0.01))
            yield contender
        finally:
            contender.signal(signal.SIGTERM)
            process.wait()


def free_port(host: str) -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def comes_true(condition: Callable[[], bool], is_lost: Callable[[], bool] = lambda: False) -> bool:
    """Waits for a condition, for two minutes or until it is lost; says whether it came true."""
    deadline = time.monotonic() + _START_S
    while not (found := condition()) and not is_lost() and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def becomes_ready(process: subprocess.Popen[bytes], url: str) -> bool:
    """Waits until a server answers 200; says whether it does before it ends."""

    def is_ready() -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(url, trust_env=False).status_code == 200
        return False

    return comes_true(is_ready, lambda: process.poll() is not None)


def _tree(pid: int) -> list[int]:
    """A process and its descendants."""
    children = [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in read(task).split()]
    return [pid, *(below for child in children for below in _tree(child))]


def read(file: Path) -> str:
    """The file of the kernel; empty if its thread or process has ended since it was listed."""
    try:
        return file.read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def cpu_s_of(pid: int) -> float:
    """Seconds of CPU time of a process; 0 if it has ended."""
    fields = read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0
