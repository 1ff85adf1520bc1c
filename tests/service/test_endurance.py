"""The service as a process under load: killed workers, floods, half-sent requests, its end. No request without an answer."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.serving.load import Sample, closed_loop, request
from rankone.client import Client
from rankone.model.bundle import Bundle
from rankone.service.auth.keys import add_key
from tests.services import Process, Start

pytestmark = pytest.mark.anyio

NPY = "Accept: application/x-npy"


def picture(seed: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (64, 64, 3), np.uint8)).save(file, "jpeg")
    return file.getvalue()


def embeds(*headers: str) -> list[bytes]:
    return [request("/embed", picture(seed), "image/jpeg", [NPY, *headers]) for seed in range(8)]


@pytest.fixture
def serve(start: Start, tiny: Bundle) -> Callable[..., Process]:
    """A service of the tiny bundle, ready."""

    def serve_one(key: str | None = None, **settings: object) -> Process:
        process = start(tiny.path, **settings)
        with Client(process.url) as client:
            client.wait_until_ready(60)
        return process

    return serve_one


@asynccontextmanager
async def load(process: Process, duration_s: float, requests: list[bytes]) -> AsyncIterator[asyncio.Task[Sample]]:
    """Eight clients, each waiting for its answer, while the block runs and until `duration_s` is over."""
    task = asyncio.create_task(closed_loop("127.0.0.1", process.port, requests, 8, duration_s))
    yield task
    await task


def children(process: Process) -> list[int]:
    tasks = Path(f"/proc/{process.popen.pid}/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_killed_decode_workers_leave_no_request_without_an_answer(serve: Callable[..., Process]) -> None:
    """An image whose worker is killed is tried again; only one that loses two workers is refused, with 503."""
    process, num_kills = serve(), 0
    async with load(process, 4, embeds()) as running:
        for _ in range(6):
            await asyncio.sleep(0.5)
            for pid in children(process)[:1]:
                os.kill(pid, signal.SIGKILL)
                num_kills += 1
        sample = await running
    assert num_kills >= 3
    assert set(sample.statuses) <= {200, 503}
    assert sample.statuses[503] <= num_kills // 2
    assert sample.statuses[200] > 100
    with Client(process.url) as client:
        client.wait_until_ready(30)


async def test_the_end_loses_no_request(serve: Callable[..., Process]) -> None:
    """SIGTERM under load: every request sent on an open connection is answered, then the process ends."""
    process = serve(drain_s=1)
    async with load(process, 20, embeds()) as running:
        await asyncio.sleep(1)
        process.popen.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 503 " in head
        assert b"connection: close" in head.lower()
        writer.close()
        sample = await running
    process.popen.wait(30)
    status, printed = process.end()
    assert sample.statuses[200] > 50
    assert sample.statuses[-1] == 8, "the load went on until nothing listened"
    assert set(sample.statuses) == {200, -1}
    assert status in (0, -signal.SIGTERM), printed
    assert "Traceback" not in printed


async def test_a_second_signal_ends_it_at_once(serve: Callable[..., Process]) -> None:
    process = serve(drain_s=60)
    process.popen.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.5)
    assert process.popen.poll() is None
    status, _ = process.end(signal.SIGTERM)
    assert status == 128 + signal.SIGTERM


async def test_half_sent_requests_keep_nobody_out(serve: Callable[..., Process]) -> None:
    """200 clients that send nothing, half a header or half a body; those with half a body are told when it is too late."""
    process = serve(receive_timeout_s=2, max_connections=300)
    halves = [
        b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\nabc",
        b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-",
        b"",
    ]
    sockets = [socket.create_connection(("127.0.0.1", process.port), timeout=10) for _ in range(200)]
    for number, half in enumerate(sockets):
        half.sendall(halves[number % 3])
    async with load(process, 1, embeds()) as running:
        sample = await running
    assert set(sample.statuses) == {200}
    assert {half.recv(12) for half in sockets[::3]} == {b"HTTP/1.1 408"}
    for half in sockets:
        half.close()


async def test_what_does_not_end_in_time_is_told_so(start: Start, bundle: Bundle) -> None:
    """At the end of the grace a request in work gets an answer of ours, and the process does not wait for the engine."""
    long = {"request_timeout_s": 600, "max_queue": 10_000}  # nothing is refused beforehand
    process = start(bundle.path, max_batch=1, grace_s=1, drain_s=0, workers=1, **long)
    with Client(process.url) as client:
        client.wait_until_ready(60)
    ten = json.dumps(
        {"images": [base64.b64encode(picture()).decode()] * 10}
    )  # 2,000 in all: no machine does so many in time
    many = [request("/embed", ten.encode(), "application/json", [NPY])]
    running = asyncio.create_task(closed_loop("127.0.0.1", process.port, many, 200, 0.1))
    await asyncio.sleep(0.5)
    process.popen.send_signal(signal.SIGTERM)
    statuses = (await running).statuses
    process.popen.wait(30)
    assert set(statuses) <= {200, 503}
    assert statuses[503] > 0


async def test_a_flood_without_keys_does_not_reach_the_queue(serve: Callable[..., Process], tmp_path: Path) -> None:
    secret, _ = add_key(tmp_path / "keys.json", "good", frozenset({"read"}))
    process = serve(keys=tmp_path / "keys.json")
    flood = [request("/embed", b"x" * 10_000, "image/jpeg", ["Authorization: Bearer wrong"])]
    async with load(process, 2, flood) as flooding, load(process, 2, embeds(f"Authorization: Bearer {secret}")) as good:
        flooded, served = await flooding, await good
    assert set(flooded.statuses) == {401, 429}
    assert set(served.statuses) == {200}


async def test_memory_stays_flat(serve: Callable[..., Process]) -> None:
    """A few thousand requests in each form, of good images and bad ones, after as many to warm up."""
    process = serve()
    requests = [*embeds(), request("/embed", b"nonsense", "image/png"), request("/embed", picture(), "image/jpeg")]

    async def some(duration_s: float) -> Counter[int]:
        async with load(process, duration_s, requests) as running:
            return (await running).statuses

    await some(2)
    pids = [process.popen.pid, *children(process)]
    before = {pid: resident_bytes(pid) for pid in pids}
    statuses = await some(2)
    assert statuses[200] > 100
    assert set(statuses) == {200, 415}
    for pid in pids:
        assert resident_bytes(pid) - before[pid] < 20_000_000
