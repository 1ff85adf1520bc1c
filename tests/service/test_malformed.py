"""What is no HTTP, over a bare socket: a problem as every other error is, after the answers that were owed before it."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from email.message import Message
from typing import Any

import pytest

from rankone.client import Client
from rankone.model.bundle import Bundle
from tests.services import Process

HEAD = b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
PROBES = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 2


@pytest.fixture(scope="module")
def process(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A service that is ready, of a network that takes no time, and in whose log nothing is a fault of its own at the end."""
    process = Process(tiny.path, tmp_path_factory.mktemp("malformed"))
    with Client(process.url) as client:
        client.wait_until_ready(60)
    yield process
    _, printed = process.end()
    process.close()
    assert "Traceback" not in printed


class Connection:
    """Bytes out, answers in."""

    def __init__(self, bare: socket.socket) -> None:
        self.send = bare.sendall
        self._incoming = bare.makefile("rb")

    def answer(self) -> tuple[int, Message, Any]:
        """Status, headers and JSON of the next answer."""
        status = int(self._incoming.readline().split()[1])
        headers = http.client.parse_headers(self._incoming)
        return status, headers, json.loads(self._incoming.read(int(headers["content-length"])))

    def check_last(self, status: int, title: str, detail: str) -> None:
        """The next answer is this problem, and nothing follows."""
        found, headers, body = self.answer()
        assert (found, headers["content-type"], headers["connection"]) == (status, "application/problem+json", "close")
        assert body == {"type": "about:blank", "title": title, "status": status, "detail": detail}
        self.check_end()

    def check_end(self) -> None:
        assert self._incoming.read() == b""


@pytest.fixture
def connection(process: Process) -> Iterator[Connection]:
    with socket.create_connection(("127.0.0.1", process.port), timeout=10) as bare:
        yield Connection(bare)


NOT_HTTP = (
    400,
    "Bad Request",
    "this is not HTTP/1.1: the first line, a header or the framing of the body cannot be read",
)

TOO_LONG = (
    431,
    "Request Header Fields Too Large",
    "the headers, trailers or chunk extensions of the request are longer than 65,536 bytes",
)


@pytest.mark.parametrize(
    "sent",
    [
        b"NONSENSE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # as TLS begins
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nno header\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: \x00\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nno length\r\n",
    ],
)
def test_what_is_no_http_is_answered_with_a_problem(connection: Connection, sent: bytes, process: Process) -> None:
    connection.send(sent)
    connection.check_last(*NOT_HTTP)
    with Client(process.url) as client:
        assert client.ready()


def test_headers_that_are_too_long_are_told_so_while_they_are_still_sent(connection: Connection) -> None:
    connection.send(b"GET /info HTTP/1.1\r\n" + (b"X-Padding: " + b"x" * 1000 + b"\r\n") * 5000)
    connection.check_last(*TOO_LONG)


def test_headers_that_are_no_http_and_too_long_get_one_answer(connection: Connection) -> None:
    connection.send(b"GET /info HTTP/1.1\r\nX-Padding: " + b"x" * 65_400)
    time.sleep(0.2)  # so that the end of what is allowed comes with the fault
    connection.send(b"\0" + b"x" * 1000)
    connection.check_last(*NOT_HTTP)


def test_requests_before_it_have_their_answers_first(connection: Connection) -> None:
    connection.send(PROBES + b"NONSENSE\r\n\r\n")
    for _ in range(2):
        status, _, body = connection.answer()
        assert (status, body) == (200, {"status": "alive"})
    connection.check_last(*NOT_HTTP)


def test_a_client_that_leaves_behind_pipelined_requests_is_no_fault(process: Process, connection: Connection) -> None:
    """The log is looked at in the end."""
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", process.port), timeout=10) as bare:
            bare.sendall(HEAD + b"Content-Length: 4\r\n\r\nabcd" + PROBES)
    connection.send(PROBES)
    assert [connection.answer()[0] for _ in range(2)] == [200, 200]


def test_a_request_that_has_its_answer_gets_no_second_one(connection: Connection) -> None:
    """Refused on its headers, then followed by what is no body."""
    connection.send(b"DELETE /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert connection.answer()[0] == 405
    connection.send(b"no length\r\n")
    connection.check_end()


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        CHUNKED + b"0\r\n" + (b"X-Padding: " + b"x" * 1000 + b"\r\n") * 5000,
        CHUNKED + b"0\r\nX-Padding: " + b"x" * 5_000_000,
        CHUNKED + b"3;" + b"x" * 5_000_000,
    ],
)
def test_what_a_chunked_body_brings_along_has_the_limit_of_headers(connection: Connection, sent: bytes) -> None:
    connection.send(sent)
    connection.check_last(*TOO_LONG)


def test_chunks_and_trailers_within_the_limit_are_no_headers_of_the_next_request(connection: Connection) -> None:
    """Framing of 200 kB in all around a body, then trailers and headers of 90 kB together."""
    padding = b"X-Padding: " + b"x" * 45_000 + b"\r\n\r\n"
    chunked = b"DELETE /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection.send(chunked)
    assert connection.answer()[0] == 405
    probe = PROBES[: len(PROBES) // 2 - 2] + padding
    for part in (b"1;e=x\r\na\r\n" * 20_000, b"0\r\n" + padding, probe[:-2], probe[-2:]):
        time.sleep(0.1)  # so that each comes by itself
        connection.send(part)
    assert connection.answer()[0] == 200


def test_a_trailer_is_no_header(connection: Connection) -> None:
    connection.send(CHUNKED + b"0\r\nX-Request-Timeout: nonsense\r\n\r\n")
    status, _, body = connection.answer()
    assert (status, "X-Request-Timeout" in body["detail"]) == (415, False)


def test_a_body_that_is_asked_for_and_is_no_http_has_one_answer(connection: Connection) -> None:
    """The log is looked at in the end."""
    connection.send(HEAD + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n")
    connection.check_last(*NOT_HTTP)


OFFER = b"Connection: Upgrade, HTTP2-Settings%b\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"


@pytest.mark.parametrize("pause_s", [0, 0.1], ids=["at once", "headers first"])
@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: 18\r\n", b'{"kind":"compact"}'),
        (b"Transfer-Encoding: chunked\r\n", b'5\r\n{"kin\r\nd\r\nd":"compact"}\r\n0\r\n\r\n'),
    ],
)
def test_an_offer_of_another_protocol_is_declined_and_the_request_answered(
    connection: Connection, framing: bytes, body: bytes, pause_s: float
) -> None:
    """As `curl --http2` and Java's client make it."""
    name = f"offer-{len(body)}-{int(10 * pause_s)}"
    head = f"PUT /indexes/{name} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".encode()
    connection.send(head + OFFER % b"" + framing + b"\r\n" + (b"" if pause_s else body))
    if pause_s:
        time.sleep(pause_s)
        connection.send(body)
    status, headers, made = connection.answer()
    assert (status, made["name"], made["kind"]) == (201, name, "compact")
    assert "connection" not in headers
    connection.send(PROBES)
    assert [connection.answer()[0] for _ in range(2)] == [200, 200]


def test_a_body_behind_an_offer_is_no_request(connection: Connection) -> None:
    head = b"DELETE /healthz HTTP/1.1\r\nHost: x\r\n" + OFFER % b"" + b"Content-Length: %d\r\n\r\n"
    connection.send((head % len(PROBES) + PROBES) * 300 + PROBES)
    assert [connection.answer()[0] for _ in range(302)] == [405] * 300 + [200] * 2


def test_a_client_that_offers_and_closes_gets_its_answer_and_the_end(connection: Connection) -> None:
    connection.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + OFFER % b", close" + b"\r\n")
    status, headers, _ = connection.answer()
    assert (status, headers["connection"]) == (200, "close")
    connection.check_end()


@pytest.mark.parametrize(("target", "expected"), [(b"x:443", 400), (b"/healthz", 405)])
def test_what_follows_connect_is_no_request(connection: Connection, target: bytes, expected: int) -> None:
    connection.send(b"CONNECT %b HTTP/1.1\r\nHost: x\r\n\r\n" % target + PROBES)
    status, headers, _ = connection.answer()
    assert (status, headers["connection"]) == (expected, "close")
    connection.check_end()
