"""The app in this process for most tests, and as a process of its own, without torch, for what only a process shows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from rankone.client import Client, ServiceError
from rankone.index import Indexes
from rankone.model.bundle import Bundle
from rankone.service.app import create_app
from rankone.service.bundles import Models
from rankone.service.observe.metrics import Metrics
from rankone.service.runtime import Runtime, load, open_indexes
from rankone.service.settings import Settings


def fail(error: Exception) -> None:
    raise error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that are marked with backends run once with each."""
    if (marker := metafunc.definition.get_closest_marker("backends")) and "place" in metafunc.fixturenames:
        metafunc.parametrize("place", marker.args, indirect=True)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> str:
    """Where the indexes are, as RANKONE_INDEX has it."""
    url: str = request.getfixturevalue("database") if getattr(request, "param", "local") == "postgres" else "local"
    return url


@pytest.fixture
def settings(bundle: Bundle, tmp_path: Path, place: str) -> Settings:
    data = tmp_path / "index"
    return Settings(bundle=bundle.path, data=data, index=place, max_images=8, max_batch=3, max_request_bytes=2_000_000)


@pytest.fixture(scope="session")
async def loaded(
    anyio_backend: str, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Runtime]:
    """An engine and decode workers, started once a session."""
    settings = Settings(bundle=bundle.path, data=tmp_path_factory.mktemp("loaded"), max_batch=3)
    indexes = Indexes(settings.data)
    runtime = await load(bundle, settings, Metrics(), indexes)
    yield runtime
    await runtime.close()
    indexes.close()


@pytest.fixture(scope="session")
async def light(anyio_backend: str, tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runtime]:
    """Like `loaded`, for tests of everything around the network: one that takes no time, and one decode worker."""
    settings = Settings(bundle=tiny.path, data=tmp_path_factory.mktemp("light"), workers=1)
    indexes = Indexes(settings.data)
    runtime = await load(tiny, settings, Metrics(), indexes)
    yield runtime
    await runtime.close()
    indexes.close()


@pytest.fixture
async def light_http(light: Runtime, tmp_path: Path, place: str) -> AsyncIterator[httpx.AsyncClient]:
    own = light.settings.model_copy(update={"data": tmp_path / "index", "index": place})
    async with serving(own, light) as app, client_of(app) as http:
        yield http


@contextlib.asynccontextmanager
async def serving(settings: Settings, loaded: Runtime) -> AsyncIterator[FastAPI]:
    """The app, ready, with settings and an index of its own, and the engine and workers that `loaded` has."""
    app = create_app(settings, fail)
    app.state.indexes = indexes = open_indexes(settings)
    indexes.acquire(loaded.bundle.fingerprint, loaded.bundle.manifest.dim, thumbnails=settings.thumbnails)
    app.state.service.runtime = replace(loaded, settings=settings, indexes=indexes)
    app.state.metrics.index_items.counts = indexes.counts
    app.state.models = Models(settings, app.state.service, app.state.metrics, app.state.indexes)
    yield app
    app.state.indexes.close()


@pytest.fixture
async def app(anyio_backend: str, settings: Settings, loaded: Runtime) -> AsyncIterator[FastAPI]:
    async with serving(settings, loaded) as app:
        yield app


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost")


def multipart(images: list[bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", ("image", image)) for image in images]


async def exchange(
    app: FastAPI,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Sequence[tuple[bytes, bytes]] = (),
    *,
    leaves: asyncio.Event | None = None,
    slow_s: float = 0.0,
) -> tuple[list[int], int]:
    """One request over bare ASGI, and the statuses and bytes of its answer.

    The client hangs up at `leaves`, after its body, and takes `slow_s` for every part of the answer.
    """
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    statuses, num_bytes = list[int](), 0

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await (leaves or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal num_bytes
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
        num_bytes += len(message.get("body", b""))
        await asyncio.sleep(slow_s)

    sent = [(b"host", b"localhost"), (b"content-length", b"%d" % len(body)), *headers]
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": sent}
    await app(scope, receive, send)
    return statuses, num_bytes


WITHOUT_TORCH = """
import sys
from importlib.machinery import ModuleSpec

class Block:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name.partition(".")[0] in ("torch", "torchvision") else None

    def create_module(self, spec):  # only now: Lance looks whether torch is there, and does not import it
        raise ImportError(f"{spec.name} is not to be had here")

    def exec_module(self, module): ...

sys.meta_path.insert(0, Block())
from rankone.__main__ import main
main()
"""

Start = Callable[..., "Process"]


class Process:
    """`rankone serve` on a free port or the given one, with torch made unimportable."""

    def __init__(self, bundle: Path, data: Path, port: int = 0, **settings: Any) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = port or probe.getsockname()[1]
        flags = ["serve", "--bundle", str(bundle), "--data", str(data), "--port", str(self.port)]
        given = {f"RANKONE_{name.upper()}": str(value) for name, value in {"drain_s": 0.2, **settings}.items()}
        environment = {**os.environ, "PYTHONPATH": os.getcwd(), **given}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe that nobody reads would stop it
        self.popen = subprocess.Popen(
            [sys.executable, "-c", WITHOUT_TORCH, *flags], env=environment, stdout=self._log, stderr=subprocess.STDOUT
        )
        self.url = f"http://127.0.0.1:{self.port}"

    def ready(self) -> Client:
        client = Client(self.url)
        for _ in range(30):  # five minutes: it may have the processors of a busy machine
            with contextlib.suppress(ServiceError):
                client.wait_until_ready(timeout_s=10)
                return client
            assert self.popen.poll() is None, self.end()[1]
        raise TimeoutError(self.end()[1])

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """The exit status and all it printed."""
        with contextlib.suppress(ProcessLookupError):
            self.popen.send_signal(number)
        self.popen.wait(timeout=60)
        self._log.seek(0)
        return self.popen.returncode, self._log.read().decode()

    def close(self) -> None:
        """Ends it, whatever became of it."""
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(timeout=60)
        self._log.close()


@pytest.fixture
def start(bundle: Bundle, tmp_path: Path) -> Iterator[Start]:
    """Starts services over the same index; whatever still runs at the end is killed."""
    started: list[Process] = []

    def start_one(bundle_path: Path = bundle.path, **settings: Any) -> Process:
        started.append(Process(bundle_path, tmp_path / "index", **settings))
        return started[-1]

    yield start_one
    for process in started:
        process.close()
