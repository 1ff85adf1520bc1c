"""What is put under load: the service, and LitServe with the same bundle, each as a process."""

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import uvloop

from benchmarks.serving.load import closed_loop, request
from benchmarks.subject import jpegs
from benchmarks.timing import console
from rankone.model.bundle import Bundle

_START_S: Final = 120.0
_FIRST: Final = 8
_A_MOMENT_S: Final = 0.01
HOST: Final = "127.0.0.1"
LONG_S: Final = 3600.0
"""A timeout by a clock that goes on while a server is stopped: it is not to pass."""
NPY: Final = "Accept: application/x-npy"
_BOUNDARY: Final = b"rankone-boundary"
_LITSERVE_TIMEOUT_S: Final = 30.0
"""Its own default."""
_TIMEOUTS: Final = ("--request-timeout-s", "--max-request-timeout-s", "--receive-timeout-s", "--decode-timeout-s")


@dataclass(frozen=True)
class Contender:
    """A server that embeds images, and how it is asked for it."""

    name: str
    port: int
    pid: int
    path: str

    def single(self, image: bytes, accept: str = NPY, query: str = "", timeout_s: float = 60.0) -> bytes:
        """A request of one image, in the form that costs this server least. Only rankone looks at the timeout."""
        if self.name == "LitServe":
            body = b'{"image": "%s"}' % base64.b64encode(image)
            return request(self.path, body, "application/json", [accept])
        return request(self.path + query, image, "image/jpeg", [accept, f"X-Request-Timeout: {timeout_s}"])

    def batch(self, images: Sequence[bytes]) -> bytes:
        """A request of several, as a multipart form."""
        head = b"--%s\r\nContent-Disposition: form-data; name=images; filename=a.jpg\r\n\r\n" % _BOUNDARY
        body = b"".join(head + image + b"\r\n" for image in images) + b"--%s--\r\n" % _BOUNDARY
        return request(self.path, body, f"multipart/form-data; boundary={_BOUNDARY.decode()}", [NPY])

    @contextmanager
    def asleep(self) -> Iterator[None]:
        """Stops it while the block runs, but for when it is `awake`: one that waits may burn the processor."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    @contextmanager
    def awake(self) -> Iterator[Contender]:
        """Lets it run while the block does."""
        self.signal(signal.SIGCONT)
        try:
            yield self
        finally:
            self.signal(signal.SIGSTOP)

    def cpu_s(self) -> float:
        """Seconds of processor time that it and its children have taken."""
        return sum(_cpu_s(pid) for pid in _tree(self.pid))

    def signal(self, number: int) -> None:
        """Sends it and its children a signal, as far as they live."""
        for pid in _tree(self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


Contenders: TypeAlias = Mapping[str, Contender]
"""By name, all of them started and asleep."""


@contextmanager
def service(bundle: Bundle, threads: int, *flags: str) -> Iterator[Contender]:
    """`rankone serve`, with its own defaults."""
    with tempfile.TemporaryDirectory() as data:
        command = ["rankone", "serve", "--bundle", str(bundle.path), "--data", data, "--threads", str(threads), *flags]
        with _running("rankone", command, "/embed", "/readyz") as contender:
            yield contender


@contextmanager
def litserve(bundle: Bundle, threads: int, max_batch: int, timeout_s: float | None = None) -> Iterator[Contender]:
    """LitServe, with one worker that owns the engine, as it is there by default."""
    command = ["benchmarks.serving.litserve_peer", str(bundle.path), str(threads), str(max_batch)]
    command.append(str(timeout_s or _LITSERVE_TIMEOUT_S))
    with _running("LitServe", command, "/predict", "/health") as contender:
        yield contender


@contextmanager
def contenders_of(
    bundle: Bundle, threads: int, timeout_s: float | None = None, *, with_peer: bool = True
) -> Iterator[Contenders]:
    """The service and, where it is installed, LitServe, with their own timeouts or all of them `timeout_s`."""
    patience = [] if timeout_s is None else [part for flag in _TIMEOUTS for part in (flag, str(timeout_s))]
    starts = [service(bundle, threads, *patience)]
    if with_peer and importlib.util.find_spec("litserve") is not None:
        starts.append(litserve(bundle, threads, 4, timeout_s))
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
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: S603 - our own modules
            [sys.executable, "-m", *command, "--port", str(port)], stdout=log, stderr=log
        )
        contender = Contender(name, port, process.pid, path)
        try:
            _wait_until_ready(process, port, health)
            _run_in(contender)
            yield contender
        finally:
            contender.signal(signal.SIGTERM)
            process.wait()


def _run_in(contender: Contender) -> None:
    """Some batches that are not measured, as not everybody runs the engine before the first of them."""
    requests = [contender.single(file) for file in jpegs(_FIRST)]
    uvloop.run(closed_loop(HOST, contender.port, requests, _FIRST, _A_MOMENT_S))


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, health: str) -> None:
    import httpx

    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
        try:
            if httpx.get(f"http://{HOST}:{port}{health}", trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            continue
    raise RuntimeError(f"{process.args!r} did not become ready")


def _tree(pid: int) -> list[int]:
    """A process and all below it."""
    children = [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in _read(task).split()]
    return [pid, *(below for child in children for below in _tree(child))]


def _read(file: Path) -> str:
    """What the kernel says there; nothing of a thread or process that has ended since it was listed."""
    try:
        return file.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _cpu_s(pid: int) -> float:
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    if not fields:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
