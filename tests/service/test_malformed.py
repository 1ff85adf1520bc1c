"""What is no HTTP, over a bare socket: 400 from uvicorn, the end of the connection, and no fault of the service."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from rankone.client import Client
from rankone.model.bundle import Bundle
from tests.services import Process

HEAD = b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
PROBES = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2


@pytest.fixture(scope="module")
def process(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A service that is ready, and in whose log there is no traceback at the end."""
    process = Process(tiny.path, tmp_path_factory.mktemp("malformed"))
    with Client(process.url) as client:
        client.wait_until_ready(60)
    yield process
    _, printed = process.end()
    process.close()
    assert "Traceback" not in printed


@pytest.fixture
def connection(process: Process) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", process.port), timeout=10) as bare:
        yield bare


@pytest.mark.parametrize(
    "sent",
    [
        b"NONSENSE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # as TLS begins
        b"GET /healthz HTTP/1.1\r\nno header\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: \x00\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nno length\r\n",
        HEAD + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n",
    ],
)
def test_what_is_no_http_is_refused_and_the_service_lives_on(
    connection: socket.socket, sent: bytes, process: Process
) -> None:
    connection.sendall(sent)
    assert b"HTTP/1.1 400 " in connection.makefile("rb").read()
    with Client(process.url) as client:
        assert client.ready()


def test_pipelined_requests_are_answered_in_order(connection: socket.socket) -> None:
    connection.sendall(PROBES)
    received = b""
    while received.count(b'{"status":"alive"}') < 2:
        received += connection.recv(4096)
    assert received.count(b"HTTP/1.1 200 ") == 2
