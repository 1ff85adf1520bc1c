"""When a request is sent again, after which wait, and when not: by driving the exchange, without a clock that runs."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import httpx
import pytest

from rankone.client import Client, Retries, ServiceError, routes
from rankone.client.call import Call
from rankone.client.exchange import Outcome, Wait, perform
from rankone.client.retries import asked_s, failure_of
from tests.client.conftest import INFO, QUICK, URL, Ask, json_answer, npy

REQUEST = httpx.Request("POST", URL)
DONE = json_answer({"deleted": 1})
BUSY = httpx.Response(429, headers={"retry-after": "7"}, content=b'{"detail": "the queue is full"}')
AWAY = httpx.Response(503, headers={"retry-after": "5"}, content=b'{"detail": "the service does not answer"}')
LOADING = httpx.Response(503, content=b'{"detail": "loading"}')
REFUSED = httpx.ConnectError("refused", request=REQUEST)
BROKEN_OFF = httpx.ReadError("", request=REQUEST)
GONE = httpx.RemoteProtocolError("gone", request=REQUEST)
TOO_LATE = httpx.ReadTimeout("", request=REQUEST)

BY_IDS, BY_FILTER = routes.delete("default", ["a"]), routes.delete_where("default", {})


def drive(call: Call[Any], *outcomes: Outcome, retries: Retries = Retries()) -> tuple[list[float], Any]:  # noqa: B008
    """The waits, and the result or the error, where the service answers with `outcomes`."""
    steps, waits, pending = perform(call, retries), list[float](), list(outcomes)
    step: Any = next(steps)
    try:
        while True:
            if isinstance(step, Wait):
                waits.append(step.seconds)
                step = steps.send(None)
            else:
                step = steps.send(pending.pop(0))
    except StopIteration as end:
        result = end.value
    except ServiceError as error:
        result = error
    assert not pending
    return waits, result


def status_of(result: Any) -> int:
    assert isinstance(result, ServiceError)
    return result.status


def test_a_busy_service_is_asked_again_when_it_wants_to_be() -> None:
    waits, result = drive(BY_IDS, BUSY, BUSY, DONE)
    assert result == 1
    assert all(7 <= wait_s <= 7 + 1 for wait_s in waits)
    assert waits[0] != waits[1]  # clients that were refused together do not come back together


@pytest.mark.parametrize("call", [BY_IDS, BY_FILTER])
@pytest.mark.parametrize("outcome", [BUSY, REFUSED])
def test_what_was_not_begun_is_repeated_whatever_it_is(call: Call[int], outcome: Outcome) -> None:
    assert drive(call, outcome, DONE)[1] == 1


@pytest.mark.parametrize(("outcome", "status"), [(BROKEN_OFF, 0), (GONE, 0), (AWAY, 503), (LOADING, 503)])
def test_what_may_have_been_done_is_repeated_only_where_that_does_no_harm(outcome: Outcome, status: int) -> None:
    """A proxy says 503 too where its connection to the service broke, whatever the service had done by then."""
    assert drive(BY_IDS, outcome, DONE)[1] == 1
    for call in (BY_FILTER, routes.drop_index("x")):
        waits, result = drive(call, outcome)
        assert (waits, status_of(result)) == ([], status)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 415, 422, 500, 502, 504, 507, 302])
def test_an_answer_that_will_not_change_is_final(status: int) -> None:
    waits, result = drive(BY_IDS, httpx.Response(status, content=b"no"))
    assert (waits, status_of(result), result.detail) == ([], status, "no")


def test_a_deadline_that_has_passed_is_final() -> None:
    waits, result = drive(BY_IDS, TOO_LATE)
    assert waits == []
    assert "did not answer in time" in str(result)
    assert failure_of(httpx.UnsupportedProtocol("no protocol")) is None


def test_the_number_of_attempts_is_bounded() -> None:
    waits, result = drive(BY_IDS, *[BUSY] * 3, retries=Retries(attempts=3))
    assert (len(waits), status_of(result), result.detail) == (2, 429, "the queue is full")
    assert drive(BY_IDS, LOADING, retries=Retries(attempts=1))[0] == []


def test_the_time_of_all_attempts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drive(BY_IDS, BUSY, retries=Retries(total_s=6.9))[0] == []
    now = iter([0.0, 10.0, 100.0, 113.5])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    waits, result = drive(BY_IDS, BUSY, BUSY, BUSY)
    assert (len(waits), status_of(result)) == (2, 429)


def test_waits_double_up_to_a_bound_and_are_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 1.0)
    waits, _ = drive(BY_IDS, *[LOADING] * 8)
    assert waits == [0.5, 1, 2, 4, 8, 16, 16]
    monkeypatch.setattr("random.random", lambda: 0.5)
    assert drive(BY_IDS, LOADING, LOADING, DONE)[0] == [0.25, 0.5]


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
    assert asked_s(httpx.Response(503, headers={"retry-after": value})) == seconds
    assert formatdate(60, usegmt=True) == "Thu, 01 Jan 1970 00:01:00 GMT"


@pytest.mark.parametrize(
    "failing",
    [lambda: httpx.Response(429), lambda: httpx.Response(503, headers={"retry-after": "0"}), lambda: BROKEN_OFF],
)
def test_both_clients_go_on_after_what_passes(ask: Ask, failing: Callable[[], Outcome]) -> None:
    attempts: list[bytes] = []

    def service(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/info":
            return json_answer(INFO)
        attempts.append(request.content)
        if len(attempts) < 3 and isinstance(outcome := failing(), httpx.RequestError):
            raise outcome
        return failing() if len(attempts) < 3 else httpx.Response(200, content=npy([[1, 2, 3]]))  # type: ignore[return-value]

    assert ask(service, "embed", [b"image"]).tolist() == [[1, 2, 3]]
    assert len(attempts) == 3
    assert all(b"image" in attempt for attempt in attempts)


def test_an_add_that_is_repeated_names_the_same_ids(ask: Ask) -> None:
    """Made up by the client, or an answer that was lost would leave the image there twice."""
    sent: list[Any] = []

    def service(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/info":
            return json_answer(INFO)
        ids = [item["id"] for item in httpx.Response(200, content=request.content).json()["items"]]
        sent.append(ids)
        if len(sent) == 1:
            raise BROKEN_OFF
        return json_answer({"ids": ids, "sequence": 2}, 201)

    ids = ask(service, "add", [b"one", b"two"])
    assert sent == [ids, ids]
    assert len(set(ids)) == 2


@pytest.mark.parametrize(
    ("content", "method", "arguments"),
    [
        (b"", "embed", ([b"image"],)),
        (b"{}", "embed", ([b"image"],)),
        (npy([[1, 2, 3]])[:-1], "embed", ([b"image"],)),
        (npy([[1, 2, 3], [1, 2, 3]]), "embed", ([b"image"],)),
        (b"<html>", "classify", ([b"image"],)),
        (b'{"predictions": [[{"label": "x"}]]}', "classify", ([b"image"],)),
        (b'{"predictions": []}', "classify", ([b"image"],)),
        (b'{"results": null}', "search", ([b"image"],)),
        (b"[]", "describe_index", ()),
        (b"{}", "delete", (["a"],)),
    ],
)
def test_an_answer_that_cannot_be_read_is_an_error_of_the_service(
    ask: Ask, content: bytes, method: str, arguments: tuple[Any, ...]
) -> None:
    def service(request: httpx.Request) -> httpx.Response:
        return json_answer(INFO) if request.url.path == "/info" else httpx.Response(200, content=content)

    with pytest.raises(ServiceError, match="the answer to .* cannot be read"):
        ask(service, method, *arguments)


@pytest.mark.parametrize(
    "content", [b"<html>Bad Gateway</html>", b"[]", b'{"title": "no detail"}', b'{"detail": 1, "errors": [1]}']
)
def test_an_error_that_is_no_problem_is_shown_as_it_is(ask: Ask, content: bytes) -> None:
    with pytest.raises(ServiceError) as raised:
        ask(lambda _: httpx.Response(502, content=content), "info")
    assert (raised.value.status, raised.value.detail) == (502, content.decode())


def test_where_nobody_listens_that_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the first words of a client: a wrong address is not worth half a minute of attempts."""
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waited"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as client:
        for call in (client.info, lambda: client.embed([b"image"])):
            with pytest.raises(ServiceError, match=f"no service answers at http://127.0.0.1:{port}") as raised:
                call()
            assert raised.value.status == 0


def test_an_address_or_a_key_that_cannot_be_is_refused() -> None:
    for url, sentence in (
        ("http://host:port", "is not a URL"),
        ("localhost:8000", "no service answers at localhost:8000"),
    ):
        with pytest.raises(ServiceError, match=sentence), Client(url, retries=QUICK) as client:
            client.info()
    for key in ("two words", "line\n", "schlüssel"):
        with pytest.raises(ServiceError, match="the key has characters"):
            Client(URL, key=key)


def test_a_service_that_is_not_ready_is_waited_for(ask: Ask) -> None:
    answers: list[httpx.Response] = []

    def service(_: httpx.Request) -> httpx.Response:
        answers.append(
            json_answer({"detail": "loading"}, 503, **{"retry-after": "3600"}) if len(answers) < 2 else json_answer({})
        )
        return answers[-1]

    assert ask(service, "wait_until_ready", timeout_s=60) is None
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert ask(service, "ready") is True
    for status, sentence in ((503, "503: loading"), (401, "401: loading")):
        with pytest.raises(ServiceError, match=sentence):
            ask(lambda _, status=status: json_answer({"detail": "loading"}, status), "wait_until_ready", timeout_s=0)
    asked: list[httpx.Request] = []

    def loading(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return json_answer({"detail": "loading"}, 503)

    assert ask(loading, "ready") is False
    assert len(asked) == 1
    with pytest.raises(ServiceError, match="401: "):
        ask(lambda _: json_answer({"detail": "no key"}, 401), "ready")
