"""The app in this process for most tests, and as a process of its own, without torch, for what only a process shows."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from model.bundle import Bundle
from service.app import create_app
from service.client import Client
from service.engine import Engine, load_engine
from service.runtime import assemble
from service.settings import Settings


def fail(error: Exception) -> None:
    raise error


@pytest.fixture
def settings(bundle: Bundle, tmp_path: Path) -> Settings:
    return Settings(bundle=bundle.path, data=tmp_path / "index", max_images=8, max_batch=3, max_request_bytes=2_000_000)


@pytest.fixture(scope="session")
def engine(bundle: Bundle) -> Engine:
    return load_engine(bundle, "onnx", "cpu", 2)


@pytest.fixture
def app(settings: Settings, bundle: Bundle, engine: Engine) -> Iterator[FastAPI]:
    """Ready, with an index of its own; the engine is loaded once a session."""
    app = create_app(settings, fail)
    app.state.runtime = assemble(settings, app.state.metrics, bundle, engine)
    yield app
    app.state.runtime.indexes.close()


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://service")


def multipart(images: list[bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", ("image", image)) for image in images]


WITHOUT_TORCH = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ImportError(f"{name} is not to be had here")

sys.meta_path.insert(0, Block())
from rankone.__main__ import main
main()
"""

Start = Callable[..., "Process"]


class Process:
    """`rankone serve` on a free port, with torch made unimportable."""

    def __init__(self, bundle: Path, data: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        flags = ["serve", "--bundle", str(bundle), "--data", str(data), "--port", str(self.port)]
        environment = {**os.environ, "PYTHONPATH": os.getcwd()}
        self.popen = subprocess.Popen(
            [sys.executable, "-c", WITHOUT_TORCH, *flags],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.url = f"http://127.0.0.1:{self.port}"

    def ready(self) -> Client:
        client = Client(self.url)
        client.wait_until_ready(timeout_s=60)
        return client

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """The exit status and all it printed."""
        with contextlib.suppress(ProcessLookupError):
            self.popen.send_signal(number)
        out, _ = self.popen.communicate(timeout=60)
        return self.popen.returncode, out.decode()

    def close(self) -> None:
        """Ends it, whatever became of it, and lets go of its pipe."""
        if self.popen.poll() is None:
            self.popen.kill()
        if self.popen.stdout is not None and not self.popen.stdout.closed:
            self.popen.communicate(timeout=60)


@pytest.fixture
def start(bundle: Bundle, tmp_path: Path) -> Iterator[Start]:
    """Starts services over the same index; whatever still runs at the end is killed."""
    started: list[Process] = []

    def start_one(bundle_path: Path = bundle.path) -> Process:
        started.append(Process(bundle_path, tmp_path / "index"))
        return started[-1]

    yield start_one
    for process in started:
        process.close()
