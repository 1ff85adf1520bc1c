"""The service as a process under load: killed workers, floods, half-sent requests, its end. No request without an answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.serving.load import Sample, closed_loop, request
from rankone.client import Client
from rankone.model.bundle import Bundle
from rankone.service.keys import add_key
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
    """Each kill costs the image that the worker was at, with a 422; all others are embedded."""
    process, num_kills = serve(), 0
    async with load(process, 4, embeds()) as running:
        for _ in range(6):
            await asyncio.sleep(0.5)
            for pid in children(process)[:1]:
                os.kill(pid, signal.SIGKILL)
                num_kills += 1
        sample = await running
    assert num_kills >= 3
    assert set(sample.statuses) <= {200, 422}
    assert sample.statuses[422] <= num_kills
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
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
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


async def test_half_sent_requests_are_closed_and_good_ones_answered(serve: Callable[..., Process]) -> None:
    """200 clients that send half a header or half a body, over the limit on connections, do not keep others out."""
    process = serve(receive_timeout_s=2, max_connections=100)
    halves = [
        b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-",
        b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\nabc",
        b"",
    ]
    sockets = [socket.create_connection(("127.0.0.1", process.port)) for _ in range(200)]
    for number, half in enumerate(sockets):
        half.sendall(halves[number % 3])
    async with load(process, 1, embeds()) as running:
        sample = await running
    assert set(sample.statuses) == {200}
    for half in sockets:
        half.settimeout(10)
        with suppress(ConnectionResetError):
            assert half.recv(1) == b"", "closed without an answer"
        half.close()


async def test_connections_between_two_requests_keep_nobody_out(serve: Callable[..., Process]) -> None:
    """As many as there may be, each of which has had an answer and sent an empty line, which ends uvicorn's own timer."""
    process = serve(max_connections=20, receive_timeout_s=3)
    idle = [socket.create_connection(("127.0.0.1", process.port), timeout=10) for _ in range(20)]
    for connection in idle:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 200")
        connection.sendall(b"\r\n")
    async with load(process, 1, embeds()) as running:
        assert set((await running).statuses) == {200}
    for connection in idle:
        with suppress(ConnectionResetError):
            assert connection.recv(1) == b"", "it is closed, for want of room or of a request"
        connection.close()


async def test_what_does_not_end_in_time_is_told_so(start: Start, bundle: Bundle) -> None:
    """At the end of the grace a request in work gets an answer of ours, and the process does not wait for the engine."""
    process = start(bundle.path, max_batch=1, max_queue=10_000, grace_s=1, drain_s=0, workers=1)
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


async def test_endless_headers_are_cut_off(serve: Callable[..., Process]) -> None:
    process = serve()
    with socket.create_connection(("127.0.0.1", process.port), timeout=10) as endless:
        endless.sendall(b"GET /info HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for _ in range(1000):
                endless.sendall(b"X-Padding: " + b"x" * 10_000 + b"\r\n")
                await asyncio.sleep(0.01)
            pytest.fail("ten megabytes of headers were taken")


async def test_a_flood_without_keys_does_not_reach_the_queue(serve: Callable[..., Process], tmp_path: Path) -> None:
    secret, _ = add_key(tmp_path / "keys.json", "good", frozenset({"read"}))
    process = serve(keys=tmp_path / "keys.json")
    flood = [request("/embed", b"x" * 10_000, "image/jpeg", ["Authorization: Bearer wrong"])]
    async with load(process, 2, flood) as flooding, load(process, 2, embeds(f"Authorization: Bearer {secret}")) as good:
        flooded, served = await flooding, await good
    assert set(flooded.statuses) == {401}
    assert set(served.statuses) == {200}


async def test_memory_stays_flat(serve: Callable[..., Process]) -> None:
    """A few thousand requests in each form, of good images and bad ones, after as many to warm up."""
    process = serve()
    requests = [*embeds(), request("/embed", b"nonsense", "image/png"), request("/embed", picture(), "image/jpeg")]

    async def some(duration_s: float) -> Counter[int]:
        async with load(process, duration_s, requests) as running:
            return (await running).statuses

    await some(3)
    pids = [process.popen.pid, *children(process)]
    before = {pid: resident_bytes(pid) for pid in pids}
    statuses = await some(4)
    assert statuses[200] > 200
    assert set(statuses) == {200, 415}
    for pid in pids:
        assert resident_bytes(pid) - before[pid] < 20_000_000


async def test_clients_that_do_not_take_their_answers_leave_before_those_that_send(
    serve: Callable[..., Process],
) -> None:
    """They ask for what anybody may have, three times as many as there may be."""
    process = serve(max_connections=20)
    with socket.create_connection(("127.0.0.1", process.port), timeout=10) as sending:
        sending.sendall(
            b"PUT /indexes/mine HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{"
        )
        slow = []
        for _ in range(60):
            slow.append(not_reading(process.port))
            await asyncio.sleep(0.02)  # it is given what there is room for
        async with load(process, 1, embeds()) as running:
            assert set((await running).statuses) == {200}
        sending.sendall(b"}")
        status = sending.recv(4096)[:12]
    num_whole = sum(is_whole(connection) for connection in slow)
    assert (status, num_whole <= 20) == (b"HTTP/1.1 201", True)


async def test_a_client_that_takes_next_to_nothing_is_left(serve: Callable[..., Process]) -> None:
    process = serve(receive_timeout_s=1)
    slow = not_reading(process.port)
    for _ in range(25):
        slow.recv(16)
        await asyncio.sleep(0.1)
    assert not is_whole(slow)


async def test_a_client_that_takes_its_answer_slowly_gets_all_of_it(serve: Callable[..., Process]) -> None:
    process = serve(receive_timeout_s=1)
    slow, taken = not_reading(process.port), 0
    for _ in range(25):
        taken += len(slow.recv(4096))
        await asyncio.sleep(0.1)
    assert is_whole(slow, taken)


def not_reading(port: int) -> socket.socket:
    """A connection with 1.5 MB to take, of which little fits into what the kernel keeps for it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    connection.settimeout(10)
    connection.sendall(b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n")
    return connection


def is_whole(connection: socket.socket, num_taken: int = 0) -> bool:
    """Whether the rest of the answer comes; then the connection is closed."""
    with connection, suppress(ConnectionResetError, TimeoutError):
        connection.settimeout(3)
        while num_taken < 1_500_000 and (part := connection.recv(1 << 20)):
            num_taken += len(part)
    return num_taken >= 1_500_000
