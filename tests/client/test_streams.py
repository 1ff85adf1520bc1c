"""Streams: in order, with a bounded number of requests on their way and inputs in memory, ended when nobody listens."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from rankone.client import AsyncClient, Client, Rejection, ServiceError
from tests.client.conftest import INFO, QUICK, URL, Ask, json_answer, npy

pytestmark = pytest.mark.anyio

PER_REQUEST = INFO["limits"]["max_images"]  # type: ignore[index]
"""Four."""


def images(count: int, read: list[int]) -> Iterator[bytes]:
    """Images that say which they are; `read` hears of each."""
    for place in range(count):
        read.append(place)
        yield f"image {place} ".encode()


def embed(request: httpx.Request) -> httpx.Response:
    """An embedding for every image: its number, three times."""
    if request.url.path == "/info":
        return json_answer(INFO)
    numbers = [int(part.split()[0]) for part in request.content.split(b"\r\n\r\nimage ")[1:]]
    return httpx.Response(200, content=npy([[n] * 3 for n in numbers]))


def slow(answer: Callable[[int], Awaitable[None]]) -> httpx.AsyncBaseTransport:
    """A service that awaits `answer` with the number of the first image before it answers a request."""

    async def service(request: httpx.Request) -> httpx.Response:
        response = embed(request)
        if request.url.path != "/info":
            await answer(int(np.load(io.BytesIO(response.content))[0, 0]))
        return response

    return httpx.MockTransport(service)


def test_one_request_of_inputs_at_a_time() -> None:
    read: list[int] = []
    with Client(URL, transport=httpx.MockTransport(embed)) as client:
        for answer in client.embed_iter(images(10**9, read)):
            assert answer.value.tolist() == [answer.index] * 3
            assert len(read) <= (answer.index // PER_REQUEST + 1) * PER_REQUEST + 1
            if answer.index == 50:
                break
    assert len(read) == 53


async def test_answers_keep_the_order_of_the_inputs_whichever_comes_first() -> None:
    """Of every four requests on their way, the last one is answered first."""
    waiting: dict[int, asyncio.Event] = {}
    finished: list[int] = []

    async def answer(first: int) -> None:
        waiting[first] = asyncio.Event()
        if len(waiting) == 4:
            for event in reversed(waiting.values()):
                event.set()
                await asyncio.sleep(0)
        await waiting[first].wait()
        finished.append(first)

    async with AsyncClient(URL, transport=slow(answer), concurrency=4) as client:
        answers = [entry async for entry in client.embed_iter(images(16, []))]
    assert [entry.index for entry in answers] == list(range(16))
    assert [entry.value.tolist() for entry in answers] == [[n] * 3 for n in range(16)]
    assert finished != sorted(finished)


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_no_more_requests_and_inputs_at_once_than_agreed(concurrency: int) -> None:
    read: list[int] = []
    now, most, as_many_as_agreed = 0, 0, asyncio.Event()

    async def answer(_: int) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if now == concurrency:
            as_many_as_agreed.set()
        await as_many_as_agreed.wait()
        await asyncio.sleep(0.001)
        now -= 1

    async with AsyncClient(URL, transport=slow(answer), concurrency=concurrency) as client:
        async for entry in client.embed_iter(images(120, read)):
            assert len(read) <= entry.index + PER_REQUEST * (concurrency + 1) + 1
    assert (most, len(read)) == (concurrency, 120)


async def test_requests_on_their_way_end_when_nobody_listens() -> None:
    started: list[int] = []
    ended: list[int] = []
    all_started = asyncio.Event()

    async def answer(first: int) -> None:
        started.append(first)
        if len(started) == 3:
            all_started.set()
        try:
            await (all_started.wait() if first == 0 else asyncio.sleep(3600))
        finally:
            ended.append(first)

    async with AsyncClient(URL, transport=slow(answer), concurrency=3) as client:
        stream = client.embed_iter(images(100, []))
        assert (await anext(stream)).index == 0
        await stream.aclose()
    assert started == [0, 4, 8]
    assert sorted(ended) == [0, 4, 8]


async def test_a_request_that_fails_comes_after_the_answers_before_it() -> None:
    def service(request: httpx.Request) -> httpx.Response:
        if b"image 9 " in request.content:
            return json_answer({"detail": "image 1: bad", "errors": [{"index": 1, "reason": "bad"}]}, 422)
        return embed(request)

    async with AsyncClient(URL, transport=httpx.MockTransport(service)) as client:
        stream = client.embed_iter(images(40, []))
        seen = [(await anext(stream)).index for _ in range(8)]
        with pytest.raises(ServiceError, match="422: image 9: bad"):
            await anext(stream)
    assert seen == list(range(8))


async def test_inputs_that_break_off_break_the_stream_off(tmp_path: Path) -> None:
    def some() -> Iterator[bytes]:
        yield from images(8, [])
        raise KeyError("of the caller")

    async with AsyncClient(URL, transport=httpx.MockTransport(embed)) as client:
        with pytest.raises(KeyError, match="of the caller"):
            [entry async for entry in client.embed_iter(some())]
    with Client(URL, transport=httpx.MockTransport(embed)) as blocking, pytest.raises(KeyError):
        blocking.embed(some())


async def test_errors_without_a_place_end_the_stream_even_where_rejections_are_heard() -> None:
    """Also places that no input has: a service that says so is broken, and asking it for ever would not mend it."""
    for errors in ([], [{"index": 99, "reason": "nobody"}], [{"index": -1, "reason": "nobody"}]):

        def service(request: httpx.Request, errors: object = errors) -> httpx.Response:
            if request.url.path == "/info":
                return json_answer(INFO)
            return json_answer({"detail": "all of it", "errors": errors}, 422)

        heard: list[object] = []
        async with AsyncClient(URL, retries=QUICK, transport=httpx.MockTransport(service)) as client:
            with pytest.raises(ServiceError, match="all of it"):
                [entry async for entry in client.embed_iter(images(3, []), heard.append)]
        assert heard == []


def test_what_is_passed_over_is_left_out_of_the_next_request(ask: Ask) -> None:
    """Until nothing is at fault: 5 and 6 of the second request are refused at first, then 7, and 4 is answered."""
    requests: list[list[int]] = []

    def service(request: httpx.Request) -> httpx.Response:
        numbers = [int(part.split()[0]) for part in request.content.split(b"\r\n\r\nimage ")[1:]]
        if request.url.path != "/info":
            requests.append(numbers)
            assert len(requests) < 10
        at_fault = [place for place, n in enumerate(numbers) if n in ((5, 6) if 5 in numbers else (7,))]
        if at_fault:
            errors = [{"index": place, "reason": f"bad {numbers[place]}"} for place in at_fault]
            return json_answer({"detail": "bad", "errors": errors}, 422)
        return embed(request)

    heard: list[Rejection[bytes]] = []
    answers = ask(service, "embed_iter", images(10, []), heard.append)
    assert [(entry.index, entry.value[0]) for entry in answers] == [(n, n) for n in (0, 1, 2, 3, 4, 8, 9)]
    assert sorted((entry.index, entry.reason, entry.status) for entry in heard) == [
        (n, f"bad {n}", 422) for n in (5, 6, 7)
    ]
    assert sorted(requests) == [[0, 1, 2, 3], [4], [4, 5, 6, 7], [4, 7], [8, 9]]


async def test_the_limits_are_asked_once_and_not_before_they_matter() -> None:
    paths: list[str] = []

    def service(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        return embed(request) if request.url.path in ("/info", "/embed") else json_answer({"deleted": 0})

    expected = ["/indexes/default/items/delete", "/info", "/embed", "/embed"]
    with Client(URL, transport=httpx.MockTransport(service)) as client:
        client.delete(["a"])
        client.embed(images(1, []))
        client.embed(images(1, []))
    assert paths == expected
    paths.clear()
    async with AsyncClient(URL, transport=httpx.MockTransport(service)) as async_client:
        await async_client.delete(["a"])
        await async_client.embed(images(1, []))
        await async_client.embed(images(1, []))
    assert paths == expected


def test_a_client_without_requests_at_once_is_refused() -> None:
    with pytest.raises(ValueError, match="concurrency is 0"):
        AsyncClient(URL, concurrency=0)
