"""When a request is repeated and after how long, and what the client raises if it is not."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import httpx
import pytest

from rankone.client import Client, Retries, ServiceError
from rankone.client.connection import is_temporary, not_executed, retry_after_s
from tests.client.conftest import INFO, URL, Call, Service, json_response, npy, npy_response

Outcome = tuple[int, dict[str, str], Any] | type[httpx.RequestError]

DONE: Outcome = (200, {}, {"deleted": 1})
BUSY: Outcome = (429, {"retry-after": "7"}, {"detail": "the queue is full"})
PROXY: Outcome = (503, {"retry-after": "5"}, {"detail": "the service does not answer"})
LOADING: Outcome = (503, {}, {"detail": "loading"})

DEFAULT = {"retries": Retries()}
BY_IDS: tuple[Any, ...] = ("delete", ["a"])
BY_FILTER: tuple[Any, ...] = ("delete_where", {})
DROP: tuple[Any, ...] = ("drop_index", "x")


def service_of(*outcomes: Outcome) -> Service:
    """A service with one of these outcomes for each request, and no further requests."""
    pending = list(outcomes)

    def service(request: httpx.Request) -> httpx.Response:
        outcome = pending.pop(0)
        if isinstance(outcome, type):
            raise outcome("", request=request)
        status, headers, body = outcome
        return json_response(body, status, **headers)

    return service


def test_a_busy_service_is_asked_again_after_the_time_it_names(call: Call, waits: list[float]) -> None:
    assert call(service_of(BUSY, BUSY, DONE), *BY_IDS, options=DEFAULT) == 1
    assert len(waits) == 2
    assert all(7 <= wait_s <= 7 + 1 for wait_s in waits)
    assert waits[0] != waits[1]  # clients refused together do not return together


@pytest.mark.parametrize("request_", [BY_IDS, BY_FILTER, DROP])
@pytest.mark.parametrize("outcome", [BUSY, httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout])
def test_a_request_that_was_not_carried_out_is_always_repeated(
    call: Call, waits: list[float], request_: tuple[Any, ...], outcome: Outcome
) -> None:
    call(service_of(outcome, DONE), *request_)
    assert len(waits) == 1


@pytest.mark.parametrize(
    ("outcome", "status"), [(httpx.ReadError, 0), (httpx.RemoteProtocolError, 0), (PROXY, 503), (LOADING, 503)]
)
def test_a_request_that_may_have_been_carried_out_is_repeated_only_if_it_is_idempotent(
    call: Call, waits: list[float], outcome: Outcome, status: int
) -> None:
    """Also after 503, which a proxy answers if its connection to the service breaks during the request."""
    assert call(service_of(outcome, DONE), *BY_IDS) == 1
    assert len(waits) == 1
    for request in (BY_FILTER, DROP):
        with pytest.raises(ServiceError) as raised:
            call(service_of(outcome), *request)
        assert raised.value.status == status
    assert len(waits) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 415, 422, 500, 502, 504, 507, 302])
def test_other_statuses_are_raised_at_once(call: Call, waits: list[float], status: int) -> None:
    with pytest.raises(ServiceError) as raised:
        call(service_of((status, {}, {"detail": "no"})), *BY_IDS)
    assert (waits, raised.value.status, raised.value.detail) == ([], status, "no")


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_an_answer_that_something_before_the_service_gives_is_no_answer(
    call: Call, waits: list[float], status: int
) -> None:
    """Ray Serve's proxy says 500, in plain text, when the replica at work is killed; also of a client's first request."""
    lost: list[int] = []

    def service(request: httpx.Request) -> httpx.Response:
        if len(lost) < 2:
            lost.append(status)
            return httpx.Response(status, text="Internal Server Error")
        return json_response(INFO) if request.url.path == "/info" else json_response({"deleted": 1})

    assert call(service, "info") == INFO
    lost.clear()
    assert call(service, *BY_IDS) == 1
    assert len(waits) == 4
    lost.clear()
    with pytest.raises(ServiceError):
        call(service, *BY_FILTER)  # it may have been carried out


def test_a_timeout_is_raised_at_once(call: Call, waits: list[float]) -> None:
    with pytest.raises(ServiceError, match=f"the service did not answer in time at {URL}/.*: ReadTimeout"):
        call(service_of(httpx.ReadTimeout), *BY_IDS)
    assert waits == []
    assert not is_temporary(httpx.UnsupportedProtocol("no protocol"))
    assert not not_executed(httpx.WriteTimeout("slow"))


def test_the_number_of_attempts_is_bounded(call: Call, waits: list[float]) -> None:
    with pytest.raises(ServiceError, match="429: the queue is full"):
        call(service_of(*[BUSY] * 3), *BY_IDS, options={"retries": Retries(attempts=3)})
    assert len(waits) == 2
    with pytest.raises(ServiceError, match="503: loading"):
        call(service_of(LOADING), *BY_IDS, options={"retries": Retries(attempts=1)})
    assert len(waits) == 2


def test_the_time_of_all_attempts_is_bounded(call: Call, waits: list[float]) -> None:
    with pytest.raises(ServiceError):
        call(service_of(BUSY), *BY_IDS, options={"retries": Retries(total_s=6.9)})
    assert waits == []
    with pytest.raises(ServiceError):
        call(service_of(*[BUSY] * 4), *BY_IDS, options={"retries": Retries(total_s=28, first_s=0.1)})
    assert len(waits) == 3


def test_waits_double_up_to_a_bound_and_are_random(monkeypatch: pytest.MonkeyPatch) -> None:
    retries = Retries()
    monkeypatch.setattr("random.random", lambda: 1.0)
    assert [retries.wait_s(n, 0) for n in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 16, None]
    monkeypatch.setattr("random.random", lambda: 0.5)
    assert [retries.wait_s(n, 0, 7) for n in (1, 2)] == [7.25, 7.5]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("-3", 0),
        ("inf", 0),
        ("nan", 0),
        ("soon", 0),
        ("", 0),
        ("Thu, 01 Jan 1970 00:01:00 GMT", 10),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 50.0)
    assert retry_after_s(httpx.Response(503, headers={"retry-after": value})) == seconds
    assert formatdate(60, usegmt=True) == "Thu, 01 Jan 1970 00:01:00 GMT"


@pytest.mark.parametrize("failure", [(429, {}, {}), (503, {"retry-after": "0"}, {}), httpx.ReadError])
def test_a_repeated_request_has_the_whole_body(call: Call, failure: Outcome) -> None:
    bodies: list[bytes] = []
    failing = service_of(failure, failure)

    def service(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/info":
            return json_response(INFO)
        bodies.append(request.content)
        return failing(request) if len(bodies) < 3 else npy_response(npy([[1, 2, 3]]))

    assert call(service, "embed", [b"image"]).tolist() == [[1, 2, 3]]
    assert len(bodies) == 3
    assert all(b"image" in body for body in bodies)


def test_a_repeated_add_has_the_same_ids(call: Call) -> None:
    """Otherwise an image would be stored twice if only the first response was lost."""
    sent: list[Any] = []

    def service(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/info":
            return json_response(INFO)
        ids = [item["id"] for item in httpx.Response(200, content=request.content).json()["items"]]
        sent.append(ids)
        if len(sent) == 1:
            raise httpx.ReadError("", request=request)
        return json_response({"ids": ids, "sequence": 2}, 201)

    ids = call(service, "add", [b"one", b"two"])
    assert sent == [ids, ids]
    assert len(set(ids)) == 2


@pytest.mark.parametrize("content", [b"", b"{}", npy([[1, 2, 3]])[:-1], npy([[1, 2, 3], [1, 2, 3]])])
def test_an_array_that_cannot_be_read_is_an_error(call: Call, content: bytes) -> None:
    with pytest.raises(ServiceError, match="the answer to POST /embed cannot be read"):
        call(lambda r: json_response(INFO) if r.url.path == "/info" else npy_response(content), "embed", [b"image"])


@pytest.mark.parametrize(
    ("content", "method", "arguments"),
    [
        (b"{}", "embed", ([b"image"],)),
        (b"<html>", "classify", ([b"image"],)),
        (b'{"predictions": [[{"label": "x"}]]}', "classify", ([b"image"],)),
        (b'{"predictions": []}', "classify", ([b"image"],)),
        (b'{"results": null}', "search", ([b"image"],)),
        (b'{"results": []}', "more_like", (["a"],)),
        (b"[]", "describe_index", ()),
        (b"{}", "delete", (["a"],)),
        (b"{}", "items", ()),
    ],
)
def test_json_that_cannot_be_read_is_an_error(
    call: Call, content: bytes, method: str, arguments: tuple[Any, ...]
) -> None:
    def service(request: httpx.Request) -> httpx.Response:
        return json_response(INFO) if request.url.path == "/info" else httpx.Response(200, content=content)

    with pytest.raises(ServiceError, match="the answer to .* cannot be read"):
        call(service, method, *arguments)


@pytest.mark.parametrize(
    "content", [b"<html>Bad Gateway</html>", b"[]", b'{"title": "no detail"}', b'{"detail": 1, "errors": [1]}']
)
def test_an_error_without_a_problem_body_shows_the_body(call: Call, content: bytes) -> None:
    with pytest.raises(ServiceError) as raised:
        call(lambda _: httpx.Response(502, content=content), "info")
    assert (raised.value.status, raised.value.detail) == (502, content.decode())


def test_a_wrong_address_is_reported_at_once(waits: list[float]) -> None:
    """By the first request of a client, instead of half a minute of attempts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as client:
        methods: tuple[Callable[[], Any], ...] = (client.info, lambda: client.embed([b"image"]))
        for method in methods:
            with pytest.raises(ServiceError, match=f"no service answers at http://127.0.0.1:{port}") as raised:
                method()
            assert raised.value.status == 0
    assert waits == []


def test_an_invalid_address_or_key_is_refused() -> None:
    for url, sentence in (
        ("http://host:port", "is not a URL"),
        ("localhost:8000", "'localhost:8000' .* must begin with http:// or https://"),
    ):
        with pytest.raises(ServiceError, match=sentence):
            Client(url)
    for key in ("two words", "line\n", "schlüssel"):
        with pytest.raises(ServiceError, match="the key has characters"):
            Client(URL, key=key)


def test_wait_until_ready(call: Call, waits: list[float]) -> None:
    """It asks often, whatever `Retry-After` says, and raises what the service said last."""
    not_ready: Outcome = (503, {"retry-after": "3600"}, {"detail": "loading"})
    assert call(service_of(not_ready, httpx.ConnectError, (200, {}, {})), "wait_until_ready", timeout_s=60) is None
    assert waits == [0.1, 0.1]
    for status, sentence in ((503, "503: loading"), (401, "401: loading")):
        with pytest.raises(ServiceError, match=sentence):
            call(service_of((status, {}, {"detail": "loading"})), "wait_until_ready", timeout_s=0)
    assert waits == [0.1, 0.1]


def test_wait_until_ready_ends_at_once_when_waiting_is_useless(call: Call, waits: list[float]) -> None:
    with pytest.raises(ServiceError, match="404: another server"):
        call(service_of((404, {}, {"detail": "another server"})), "wait_until_ready", timeout_s=60)
    assert waits == []


def test_wait_until_ready_ends_in_time_when_the_service_hangs() -> None:
    """As a stopped process does: the kernel takes its connections, and no request is answered."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url, started = f"http://127.0.0.1:{silent.getsockname()[1]}", time.monotonic()
        with Client(url, timeout_s=1) as client, pytest.raises(ServiceError, match="did not answer in time"):
            client.wait_until_ready(timeout_s=0.3)
    assert time.monotonic() - started < 3


def test_ready_makes_one_request(call: Call) -> None:
    assert call(service_of((200, {}, {})), "ready") is True
    assert call(service_of(LOADING), "ready") is False
    with pytest.raises(ServiceError, match="401: "):
        call(service_of((401, {}, {"detail": "no key"})), "ready")
